-- Acknowledges a batch that the ledger has: what has not changed since is no longer pending.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, 6 pending, 7 unflushed, 8 receipts, then the likes of
--      each video in the batch's likes.
--      ARGV 1 generation, 2 ms for which likes without pending changes stay, 3 when the batch was collected if it
--      was all there was, or '0'; 4 count of counters, then video, views,
--      comments, peak of each; count of likes, then field, value, video, index of the video's likes of each;
--      then the fields of the receipts.
-- Out: number of cleared changes.
-- Atomic because the comparison and the clearing must see the same value: an increment between them would be lost. The keys contain
-- the generation, so that nothing of another one can be cleared.
local cleared = 0
local p = 4
local last = p + tonumber(ARGV[p]) * 4
while p < last do
  local video = ARGV[p + 1]
  if (redis.call('HGET', KEYS[2], video) or '0') == ARGV[p + 2]
    and (redis.call('HGET', KEYS[3], video) or '0') == ARGV[p + 3]
    and (redis.call('HGET', KEYS[4], video) or '0') == ARGV[p + 4] then
    cleared = cleared + redis.call('SREM', KEYS[5], video)
  end
  p = p + 4
end

local freed = 0
p = p + 1
last = p + tonumber(ARGV[p]) * 4
while p < last do
  local field, value, video = ARGV[p + 1], ARGV[p + 2], ARGV[p + 3]
  if redis.call('HGET', KEYS[6], field) == value then
    redis.call('HDEL', KEYS[6], field)
    freed = freed + 1
    if redis.call('HINCRBY', KEYS[7], video, -1) <= 0 then
      redis.call('HDEL', KEYS[7], video)
      redis.call('PEXPIRE', KEYS[8 + ARGV[p + 4]], ARGV[2])
    end
  end
  p = p + 4
end

for field = p + 1, #ARGV do freed = freed + redis.call('HDEL', KEYS[8], ARGV[field]) end
-- The ledger is complete up to this time.
if ARGV[3] ~= '0' then redis.pcall('HSET', KEYS[1], 'flushed_at', ARGV[3]) end
if freed > 0 and redis.call('HGET', KEYS[1], 'generation') == ARGV[1] then redis.call('HINCRBY', KEYS[1], 'waiting', -freed) end
return cleared + freed
