-- Repairs one counter: raises the store's total to the ledger's if it is lower, and marks it for the next flush.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 dirty. ARGV 1 generation, 2 video, 3 views, 4 comments of the ledger in
--      this generation.
-- Out: nothing. FENCED when the generation does not take writes.
-- Atomic because the counter may be incremented meanwhile.
if redis.call('HGET', KEYS[1], 'open') ~= ARGV[1] then return redis.error_reply('FENCED') end
for key = 2, 3 do
  local there = tonumber(redis.call('HGET', KEYS[key], ARGV[2]) or '0')
  if there < tonumber(ARGV[key + 1]) then redis.call('HSET', KEYS[key], ARGV[2], ARGV[key + 1]) end
end
redis.call('SADD', KEYS[4], ARGV[2])
