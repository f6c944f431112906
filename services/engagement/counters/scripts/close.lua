-- Closes a generation, which takes no writes from now on, and claims the right to begin the next one.
--
-- In:  KEYS 1 meta. ARGV 1 the generation to close, '0' for none; 2 the generation to begin; 3 ms that a claim is
--      good for.
-- Out: {generation, claim}. If the generation differs from the given one, nothing was closed; if the claim differs, another process
--      has it.
-- Atomic because a generation that another process has just begun must not be closed in place of its predecessor, and because only one
-- process may fence the ledger. Claims only grow: the ledger may have been fenced for the one before.
local state = redis.call('HMGET', KEYS[1], 'generation', 'claim', 'claimed_at')
local generation, claim = state[1] or '0', state[2] or '0'
if generation ~= ARGV[1] then return { generation, '0' } end
redis.call('HDEL', KEYS[1], 'open')
local now = clock()
local age = now - tonumber(state[3] or '0')
if age >= 0 and age < tonumber(ARGV[3]) or tonumber(claim) >= tonumber(ARGV[2]) then return { generation, claim } end
redis.call('HSET', KEYS[1], 'claim', ARGV[2], 'claimed_at', text(now))
return { generation, ARGV[2] }
