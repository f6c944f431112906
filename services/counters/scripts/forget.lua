-- Forgets one video, or the like of one user who is gone.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, 6 pending, 7 unflushed, 8 likes, 9 ticket, 10 viewers,
--      11 sessions.
--      ARGV 1 video, 2 user or '', 3 ms for which likes without pending changes stay.
-- Out: nothing.
-- Atomic because a like and its pending change must go together. The ticket goes too: likes that are being
-- loaded may have been read before.
local video, user = ARGV[1], ARGV[2]
redis.call('DEL', KEYS[9])
if user ~= '' then
  redis.call('SREM', KEYS[8], user)
  if redis.call('HDEL', KEYS[6], video .. ':' .. user) == 1 then
    redis.call('HINCRBY', KEYS[1], 'waiting', -1)
    if redis.call('HINCRBY', KEYS[7], video, -1) <= 0 then
      redis.call('HDEL', KEYS[7], video)
      redis.call('PEXPIRE', KEYS[8], ARGV[3])
    end
  end
  return
end
for key = 2, 4 do redis.call('HDEL', KEYS[key], video) end
redis.call('SREM', KEYS[5], video)
redis.call('UNLINK', KEYS[8], KEYS[10], KEYS[11])
-- Its pending likes stay until the next flush: the ledger does not know the video, and names each of them.
