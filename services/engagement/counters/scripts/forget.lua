-- Removes deleted videos, and likes of deleted users.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, 6 pending, 7 unflushed, then for each: likes, ticket,
--      viewers, sessions, clients.
--      ARGV 1 ms for which likes without pending changes stay, then for each: video, user or ''.
-- Out: nothing.
-- Atomic because a like and its pending change must be removed together. The ticket is removed, too: likes that are being loaded may
-- have been read before the deletion.
local function forget_like(video, user, likes)
  redis.call('SREM', likes, user)
  if redis.call('HDEL', KEYS[6], video .. ':' .. user) == 0 then return end
  redis.call('HINCRBY', KEYS[1], 'waiting', -1)
  if redis.call('HINCRBY', KEYS[7], video, -1) <= 0 then
    redis.call('HDEL', KEYS[7], video)
    redis.call('PEXPIRE', likes, ARGV[1])
  end
end

for index = 1, (#ARGV - 1) / 2 do
  local video, user = ARGV[index * 2], ARGV[index * 2 + 1]
  local likes, ticket, viewers, sessions, clients = unpack(KEYS, 3 + index * 5, 7 + index * 5)
  redis.call('UNLINK', ticket)
  if user ~= '' then
    forget_like(video, user, likes)
  else
    for key = 2, 4 do redis.call('HDEL', KEYS[key], video) end
    redis.call('SREM', KEYS[5], video)
    -- Its pending likes stay until the next flush, when the ledger reports them as gone.
    redis.call('UNLINK', likes, viewers, sessions, clients)
  end
end
