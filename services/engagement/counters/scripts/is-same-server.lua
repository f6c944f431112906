-- Whether this server is the one on which a generation began, and the generation is open.
--
-- In:  KEYS 1 meta. ARGV 1 generation.
-- Out: 1 or 0.
-- Atomic because the answer must be of one server.
local state = redis.call('HMGET', KEYS[1], 'open', 'run')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
return state[1] == ARGV[1] and state[2] == run and 1 or 0
