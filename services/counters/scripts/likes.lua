-- Sets and takes back likes of videos of one shard.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 pending, 5 unflushed, then for each video: likes, viewers.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 most changes that may wait, 5 count of videos, then their
--      ids, then for each operation: index of its video, user, '1' or '0'.
-- Out: for each operation {views, comments, likes, viewers, flag}; {-1} when the video's likes are not here,
--      {-2} when too many changes wait. FENCED when the generation does not take writes.
-- Atomic because the set, the pending change and its version must agree: a flush between them would either
-- miss the change or write it down under a version that a later change also has.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'waiting')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local waiting = tonumber(state[3] or '0')
local presence, limit, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = clock()
local fixed = {}
local answers = {}
local added = 0

for p = 6 + count, #ARGV, 3 do
  local index, user, flag = tonumber(ARGV[p]), ARGV[p + 1], ARGV[p + 2]
  local video, likes = ARGV[5 + index], KEYS[4 + index * 2]
  local size = redis.call('SCARD', likes)
  local field = video .. ':' .. user
  if size == 0 then
    answers[#answers + 1] = { -1 }
  elseif waiting + added >= limit
    and tostring(redis.call('SISMEMBER', likes, user)) ~= flag and redis.call('HEXISTS', KEYS[4], field) == 0 then
    answers[#answers + 1] = { -2 }
  else
    local changed
    if flag == '1' then changed = redis.call('SADD', likes, user) else changed = redis.call('SREM', likes, user) end
    if changed == 1 then
      size = size + (flag == '1' and 1 or -1)
      local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
      if redis.call('HSET', KEYS[4], field, flag .. ':' .. version) == 1 then
        added = added + 1
        redis.call('HINCRBY', KEYS[5], video, 1)
        -- What the ledger does not have must not expire.
        redis.call('PERSIST', likes)
      end
    end
    if not fixed[index] then
      fixed[index] = {
        tonumber(redis.call('HGET', KEYS[2], video) or '0'), tonumber(redis.call('HGET', KEYS[3], video) or '0'),
        watching(KEYS[5 + index * 2], now, presence)
      }
    end
    answers[#answers + 1] = { fixed[index][1], fixed[index][2], size - 1, fixed[index][3], tonumber(flag) }
  end
end
if added > 0 then redis.call('HINCRBY', KEYS[1], 'waiting', added) end
return answers
