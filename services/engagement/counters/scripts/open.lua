-- Begins a generation.
--
-- In:  KEYS 1 meta. ARGV 1 the generation that was closed, '0' for none; 2 the new one, which was claimed.
-- Out: the generation afterwards; the given one only for the caller that began it.
-- Atomic because only one of several recovering processes may begin a generation.
local state = redis.call('HMGET', KEYS[1], 'generation', 'open', 'claim')
local generation = state[1] or '0'
if generation ~= ARGV[1] or state[2] or state[3] ~= ARGV[2] then return generation end
redis.call('HDEL', KEYS[1], 'claimed_at')
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'open', ARGV[2], 'waiting', 0, 'since', text(clock()),
  'run', string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'))
return ARGV[2]
