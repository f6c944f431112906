-- Collects what the ledger does not have yet of one shard, at one instant.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, 6 pending, 7 receipts.
--      ARGV 1 generation, 2 looks that the caller has seen, 3 ms that must lie between two looks (0: look in any
--      case), 4 most of each kind, 5 '1' when the generation is being closed and takes no writes any more.
-- Out: {looks, flushed_at, this moment in ms} when somebody looked a moment ago, else
--      {looks, flushed_at, this moment in ms, run_id that began the generation, run_id of this server, how much waits, counters, likes, receipts}: counters
--      are video, views, comments, peak and so on; likes field, value and so on; receipts field, fingerprint.
--      FENCED when the generation is another one.
-- Atomic because totals and receipts of one comment must be of one instant.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'generation', 'run', 'collected_at', 'flushed_at')
if ARGV[5] == '1' then
  if state[3] ~= ARGV[1] then return redis.error_reply('FENCED') end
elseif not takes_writes(state, ARGV[1], ARGV[2]) then
  return redis.error_reply('FENCED')
end
local now = clock()
local age = now - tonumber(state[5] or '0')
-- A clock that was set back must not stop the flushes.
if age >= 0 and age < tonumber(ARGV[3]) then return { state[2] or '0', state[6] or '0', text(now) } end
-- A Redis that is out of memory refuses these writes, and needs the flush.
redis.pcall('HSET', KEYS[1], 'collected_at', text(now))
redis.pcall('HINCRBY', KEYS[1], 'looks', 1)
local looks = redis.call('HGET', KEYS[1], 'looks') or '0'
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local size = tonumber(ARGV[4])

local waiting = redis.call('SCARD', KEYS[5]) + redis.call('HLEN', KEYS[6]) + redis.call('HLEN', KEYS[7])
local receipts = redis.call('HRANDFIELD', KEYS[7], size, 'WITHVALUES')
-- A total must not be in the ledger without its receipts: if more are pending than fit, they are flushed first.
if redis.call('HLEN', KEYS[7]) > size then return { looks, state[6] or '0', text(now), state[4] or '', run, waiting, {}, {}, receipts } end

-- The totals of the receipts' videos are in the same batch: the ledger gets both or neither.
local videos, isChosen = {}, {}
local function choose(video)
  if isChosen[video] or #videos >= size then return end
  isChosen[video] = true
  videos[#videos + 1] = video
end
for index = 1, #receipts, 2 do choose(string.match(receipts[index], '^%d+')) end
for _, video in ipairs(redis.call('SRANDMEMBER', KEYS[5], size)) do choose(video) end

local counters = {}
for _, video in ipairs(videos) do
  counters[#counters + 1] = video
  counters[#counters + 1] = redis.call('HGET', KEYS[2], video) or '0'
  counters[#counters + 1] = redis.call('HGET', KEYS[3], video) or '0'
  counters[#counters + 1] = redis.call('HGET', KEYS[4], video) or '0'
end
if waiting == 0 then redis.pcall('HSET', KEYS[1], 'flushed_at', text(now)) end
return { looks, state[6] or '0', text(now), state[4] or '', run, waiting, counters, redis.call('HRANDFIELD', KEYS[6], size, 'WITHVALUES'), receipts }
