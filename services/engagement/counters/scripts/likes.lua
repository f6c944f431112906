-- Sets and removes likes of videos of one shard.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 pending, 5 unflushed, then for each video: likes, viewers.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 most changes that may wait, 5 count of videos, then their
--      ids, then for each operation: index of its video, user, '1' or '0'.
-- Out: for each operation {views, comments, likes, viewers, flag, version of the pending change or 0}; {-1} when the video's likes are not here,
--      {-2} when too many changes wait. FENCED when the generation does not take writes.
-- Atomic because the set, the pending change and its version must agree: a flush between them would miss the change, or write it with
-- the version of a later change.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'waiting')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local waiting = tonumber(state[3] or '0')
local presence, limit, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local operations = (#ARGV - 5 - count) / 3
local youngest, oldest = presence_range(clock(), presence)
local views, comments, viewers = totals(KEYS[2], count, 6), totals(KEYS[3], count, 6), {}
-- One version for each operation, even if it changes nothing.
local version = redis.call('HINCRBY', KEYS[1], 'version', operations) - operations
local answers = {}
local added = 0

for operation = 1, operations do
  local p = 3 + count + operation * 3
  local index, user, flag = tonumber(ARGV[p]), ARGV[p + 1], ARGV[p + 2]
  local video, likes = ARGV[5 + index], KEYS[4 + index * 2]
  local size = redis.call('SCARD', likes)
  local field = video .. ':' .. user
  if size == 0 then
    answers[operation] = { -1 }
  elseif waiting + added >= limit
    and tostring(redis.call('SISMEMBER', likes, user)) ~= flag and redis.call('HEXISTS', KEYS[4], field) == 0 then
    answers[operation] = { -2 }
  else
    local pending = 0
    if redis.call(flag == '1' and 'SADD' or 'SREM', likes, user) == 1 then
      pending = version + operation
      size = size + (flag == '1' and 1 or -1)
      if redis.call('HSET', KEYS[4], field, flag .. ':' .. version + operation) == 1 then
        added = added + 1
        -- A set with pending changes must not expire.
        if redis.call('HINCRBY', KEYS[5], video, 1) == 1 then redis.call('PERSIST', likes) end
      end
    else
      local change = redis.call('HGET', KEYS[4], field)
      if change then pending = tonumber(string.match(change, ':(%d+)')) end
    end
    viewers[index] = viewers[index] or redis.call('ZCOUNT', KEYS[5 + index * 2], youngest, oldest)
    answers[operation] = { views[index], comments[index], size - 1, viewers[index], tonumber(flag), pending }
  end
end
if added > 0 then redis.call('HINCRBY', KEYS[1], 'waiting', added) end
return answers
