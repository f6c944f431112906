-- Loads the likes of one cold video, page by page.
--
-- In:  KEYS 1 meta, 2 likes, 3 ticket, 4 loading.
--      ARGV 1 generation, 2 looks, 3 ticket of the caller, 4 ms that it is good for, 5 'begin', 'page', 'end' or 'drop',
--      6 ms for which the likes stay, then the users of a page.
-- Out: 'warm' when the video is warm, 'mine' when the caller has the ticket, 'taken' when another process has it or it is void.
--      FENCED when the generation does not take writes.
-- Atomic because likes that were read before a change must not replace later ones. While a video is cold, its likes change only by
-- deletions of users, which void the ticket (forget.lua); the ticket of a caller that was stopped half-way expires.
if not takes_writes(redis.call('HMGET', KEYS[1], 'open', 'looks'), ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'warm' end
local holder = redis.call('GET', KEYS[3])
if ARGV[5] == 'begin' then
  if holder then return 'taken' end
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
  redis.call('UNLINK', KEYS[4])
  redis.call('SADD', KEYS[4], '0')
  redis.call('PEXPIRE', KEYS[4], ARGV[4] * 2)
  return 'mine'
end
if holder ~= ARGV[3] or redis.call('EXISTS', KEYS[4]) == 0 then return 'taken' end
if ARGV[5] == 'drop' then
  redis.call('UNLINK', KEYS[3], KEYS[4])
  return 'taken'
end
if ARGV[5] == 'page' then
  for start = 7, #ARGV, 5000 do
    redis.call('SADD', KEYS[4], unpack(ARGV, start, math.min(start + 4999, #ARGV)))
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[4], ARGV[4] * 2)
  return 'mine'
end
redis.call('RENAME', KEYS[4], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('UNLINK', KEYS[3])
return 'warm'
