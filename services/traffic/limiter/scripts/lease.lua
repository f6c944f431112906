-- Leases tokens of buckets that all processes share.
--
-- In:  KEYS the buckets. ARGV 1 microseconds in which a token flows in, 2 microseconds that a full bucket holds,
--      3 tokens that an empty bucket must gain before it leases again, then for each bucket: tokens wanted, tokens owed.
-- Out: for each bucket {leased tokens, microseconds until it has tokens again, tokens left}.
-- Atomic because two processes that read the same level would both take the same tokens.
--
-- A bucket is one number, the time at which it will be full again. Owed tokens were granted already: they are taken even from an empty
-- bucket, down to a debt of one full bucket, so that in the long run no client gets more than the rate.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local per_token, capacity, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}
for index, key in ipairs(KEYS) do
  local wanted, owed = tonumber(ARGV[2 + index * 2]), tonumber(ARGV[3 + index * 2])
  local full_at = math.max(now, tonumber(redis.call('GET', key) or '0'))
  -- Limits times of another clock, from before a failover: the debt of a bucket is one full bucket at the most.
  full_at = math.min(full_at + owed * per_token, now + 2 * capacity)
  local left = math.floor((now + capacity - full_at) / per_token)
  local leased = math.max(0, math.min(wanted, left))
  full_at = full_at + leased * per_token
  if full_at > now then
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  end
  local wait = 0
  if leased == 0 then wait = math.max(0, full_at + patience * per_token - capacity - now) end
  answers[index] = { leased, math.ceil(wait), math.max(0, left - leased) }
end
return answers
