-- Counts comments on videos of one shard; those with an Idempotency-Key once.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 dirty, 5 receipts, then for each video: likes, viewers,
--      then for each operation with a use: its receipt.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 ms that a receipt is kept, 5 most changes that may wait,
--      6 count of videos, then their ids, then for each operation: index of its video, user, number of its
--      receipt or '0', use, fingerprint, generation in which the ledger was asked for the use or ''.
-- Out: for each operation {views, comments, likes or -1, viewers, liked or -1}; {-2} when too many changes wait;
--      {-3, fingerprint, answer or '', age in ms, comments} when the key was used before; {-4} when this generation is
--      younger than a receipt may be, and the ledger has not been asked in it whether it was.
--      FENCED when the generation does not take writes.
-- Atomic because a comment and its receipt belong together: with only one of them, a repeated request would be counted twice or not
-- at all.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'waiting', 'since')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local waiting = tonumber(state[3] or '0')
local presence, keep, limit, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = clock()
local youngest, oldest = presence_range(now, presence)
local isYoung = now < tonumber(state[4] or '0') + keep
local views, sizes, viewers = totals(KEYS[2], count, 7), {}, {}
local answers = {}
local added = 0

for p = 7 + count, #ARGV, 6 do
  local index, user, receipt, use, fingerprint = tonumber(ARGV[p]), ARGV[p + 1], tonumber(ARGV[p + 2]), ARGV[p + 3], ARGV[p + 4]
  local video, likes = ARGV[6 + index], KEYS[4 + index * 2]
  local answer
  if receipt > 0 then
    local key = KEYS[5 + count * 2 + receipt]
    local used = redis.call('HMGET', key, 'fingerprint', 'answer', 'at')
    if used[1] then
      answer = { -3, used[1], used[2] or '', now - tonumber(used[3]), tonumber(redis.call('HGET', KEYS[3], video) or '0') }
    elseif isYoung and ARGV[p + 5] ~= ARGV[1] then
      answer = { -4 }
    elseif waiting + added >= limit then
      answer = { -2 }
    else
      redis.call('HSET', key, 'fingerprint', fingerprint, 'at', text(now))
      redis.call('PEXPIRE', key, keep)
      redis.call('HSET', KEYS[5], video .. ':' .. use, fingerprint)
      added = added + 1
    end
  end
  if not answer then
    local comments = redis.call('HINCRBY', KEYS[3], video, 1)
    redis.call('SADD', KEYS[4], video)
    sizes[index] = sizes[index] or redis.call('SCARD', likes)
    viewers[index] = viewers[index] or redis.call('ZCOUNT', KEYS[5 + index * 2], youngest, oldest)
    local liked = -1
    if sizes[index] > 0 then liked = redis.call('SISMEMBER', likes, user) end
    answer = { views[index], comments, sizes[index] - 1, viewers[index], liked }
  end
  answers[#answers + 1] = answer
end
if added > 0 then redis.call('HINCRBY', KEYS[1], 'waiting', added) end
return answers
