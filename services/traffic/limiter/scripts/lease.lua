-- Leases tokens of buckets that all processes share.
--
-- In:  KEYS the buckets. ARGV 1 microseconds in which a token flows in, 2 microseconds that a full bucket holds,
--      3 tokens for which somebody who got none is told to wait, then for each bucket: tokens wanted, tokens owed.
-- Out: for each bucket {tokens leased, microseconds until there are some again, tokens left}.
-- Atomic because two processes that read the same level would both take what there is once.
--
-- A bucket is one number, the time at which it will be full again. What is owed was granted already: it is taken
-- even if there is nothing, up to a second bucket, so that in the long run nobody gets more than flows in.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local per_token, capacity, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}
for index, key in ipairs(KEYS) do
  local wanted, owed = tonumber(ARGV[2 + index * 2]), tonumber(ARGV[3 + index * 2])
  local full_at = math.max(now, tonumber(redis.call('GET', key) or '0'))
  -- From another clock, before Redis was restarted elsewhere: a bucket is never emptier than twice empty.
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
