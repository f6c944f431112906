-- Closes a generation: it takes no writes from now on.
--
-- In:  KEYS 1 meta. ARGV 1 the generation to close, '0' for none.
-- Out: the generation that there is; when it is another one than the given, nothing was closed.
-- Atomic because a generation that somebody has just begun must not be closed by one who means its predecessor.
local generation = redis.call('HGET', KEYS[1], 'generation') or '0'
if generation == ARGV[1] then redis.call('HDEL', KEYS[1], 'open') end
return generation
