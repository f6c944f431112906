-- Records heartbeats and departures of viewers of videos of one shard, and counts views.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, then for each video: viewers, sessions, likes.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 ms watched that make a view, 5 ms in which a viewer is one
--      view, 6 count of videos, then their ids, then for each operation: index of its video, viewer, '1' or '0'
--      (leaves).
-- Out: for each operation {views, comments, likes or -1, viewers, liked or -1}.
--      FENCED when the generation does not take writes.
-- Atomic because the session decides whether a view is counted, and records that it was: of two concurrent heartbeats, one must see
-- the other.
--
-- A session is the time since which the viewer has watched without a gap or, negative, the time at which the view was counted. One
-- sorted set holds both; old ones of both kinds are at the two ends of one range.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'since')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local presence, watched, window, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = clock()
local youngest, oldest = presence_range(now, presence)
-- While a generation is young, a viewer without a session may have been watching and been counted before the data was lost: the view
-- is not counted again.
local since = tonumber(state[3] or '0')
local isYoung = now >= since and now < since + presence
local views, comments, peaks = totals(KEYS[2], count, 7), totals(KEYS[3], count, 7), totals(KEYS[4], count, 7)
local sizes, dirty = {}, {}
local answers = {}

-- Begins a session, or marks its view as counted; removes entries that are older than the window.
local function set_session(sessions, viewer, value)
  redis.call('ZREMRANGEBYSCORE', sessions, text(window - now), text(now - window))
  redis.call('ZADD', sessions, text(value), viewer)
  redis.call('PEXPIRE', sessions, window)
end

local function beat(index, viewers, sessions, viewer)
  -- Viewers without a recent heartbeat were removed before: a viewer that is added is new, or returns after a gap.
  local isBack = redis.call('ZADD', viewers, text(now), viewer) == 1
  local session = tonumber(redis.call('ZSCORE', sessions, viewer) or '0')
  if session < 0 and -session <= now - window then session = 0 end
  if session < 0 then return end
  if session == 0 and isYoung then
    set_session(sessions, viewer, -now)
  elseif session == 0 or session > now or isBack then
    set_session(sessions, viewer, now)
  elseif now - session >= watched then
    views[index] = redis.call('HINCRBY', KEYS[2], ARGV[6 + index], 1)
    dirty[index] = true
    set_session(sessions, viewer, -now)
  end
end

for p = 7 + count, #ARGV, 3 do
  local index, viewer, isThere = tonumber(ARGV[p]), ARGV[p + 1], ARGV[p + 2] == '1'
  local viewers, sessions, likes = KEYS[3 + index * 3], KEYS[4 + index * 3], KEYS[5 + index * 3]
  if not sizes[index] then
    sizes[index] = redis.call('SCARD', likes)
    redis.call('ZREMRANGEBYSCORE', viewers, '-inf', text(now - presence))
  end
  if isThere then
    beat(index, viewers, sessions, viewer)
    redis.call('PEXPIRE', viewers, presence)
  else
    redis.call('ZREM', viewers, viewer)
  end
  local present = redis.call('ZCOUNT', viewers, youngest, oldest)
  if present > peaks[index] then
    peaks[index] = present
    redis.call('HSET', KEYS[4], ARGV[6 + index], present)
    dirty[index] = true
  end
  local liked = -1
  if sizes[index] > 0 then liked = redis.call('SISMEMBER', likes, viewer) end
  answers[#answers + 1] = { views[index], comments[index], sizes[index] - 1, present, liked }
end

for index in pairs(dirty) do redis.call('SADD', KEYS[5], ARGV[6 + index]) end
return answers
