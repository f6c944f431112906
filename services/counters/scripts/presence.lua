-- Heartbeats and departures of viewers of videos of one shard, and the views that come of them.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, then for each video: viewers, sessions, likes.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 ms watched that make a view, 5 ms in which a viewer is one
--      view, 6 count of videos, then their ids, then for each operation: index of its video, viewer, '1' or '0'
--      (leaves).
-- Out: for each operation {views, comments, likes or -1, viewers, liked or -1}.
--      FENCED when the generation does not take writes.
-- Atomic because a view is counted by what the sessions say and the sessions say that it was counted: of two
-- heartbeats at once one must see the other.
--
-- A session is the time since when the viewer has watched without a gap, or below zero the time at which the
-- view was counted; one sorted set holds both, and both grow old at the two ends of one range.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'since')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local presence, watched, window, count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = clock()
-- While a generation is young, a viewer without a session may have been watching when the memory was lost,
-- and may have been counted: they are taken for counted.
local isYoung = now < tonumber(state[3] or '0') + presence
local seen = {}
local answers = {}

local function count_view(video, sessions, viewer)
  seen[video].views = redis.call('HINCRBY', KEYS[2], video, 1)
  seen[video].isDirty = true
  redis.call('ZADD', sessions, text(-now), viewer)
end

local function beat(video, viewers, sessions, viewer)
  local last = tonumber(redis.call('ZSCORE', viewers, viewer) or '0')
  redis.call('ZADD', viewers, text(now), viewer)
  local session = tonumber(redis.call('ZSCORE', sessions, viewer) or '0')
  if session < 0 then return end
  if session == 0 and isYoung then
    redis.call('ZADD', sessions, text(-now), viewer)
  elseif session == 0 or session > now or last <= now - presence then
    redis.call('ZADD', sessions, text(now), viewer)
  elseif now - session >= watched then
    count_view(video, sessions, viewer)
  end
end

for p = 7 + count, #ARGV, 3 do
  local index, viewer, isThere = tonumber(ARGV[p]), ARGV[p + 1], ARGV[p + 2] == '1'
  local video = ARGV[6 + index]
  local viewers, sessions, likes = KEYS[3 + index * 3], KEYS[4 + index * 3], KEYS[5 + index * 3]
  if not seen[video] then
    seen[video] = {
      views = tonumber(redis.call('HGET', KEYS[2], video) or '0'),
      comments = tonumber(redis.call('HGET', KEYS[3], video) or '0'),
      likes = redis.call('SCARD', likes) - 1,
      peak = tonumber(redis.call('HGET', KEYS[4], video) or '0'),
      hasBeat = false
    }
    redis.call('ZREMRANGEBYSCORE', viewers, '-inf', text(now - presence))
    redis.call('ZREMRANGEBYSCORE', viewers, '(' .. text(now + presence), '+inf')
    redis.call('ZREMRANGEBYSCORE', sessions, text(window - now), text(now - window))
  end
  local video_seen = seen[video]
  if isThere then
    beat(video, viewers, sessions, viewer)
    video_seen.hasBeat = true
  else
    redis.call('ZREM', viewers, viewer)
  end
  local present = redis.call('ZCARD', viewers)
  if present > video_seen.peak then
    video_seen.peak = present
    video_seen.isHigher = true
    video_seen.isDirty = true
  end
  local liked = -1
  if video_seen.likes >= 0 then liked = redis.call('SISMEMBER', likes, viewer) end
  answers[#answers + 1] = { video_seen.views, video_seen.comments, video_seen.likes, present, liked }
  video_seen.keys = { viewers, sessions }
end

for video, video_seen in pairs(seen) do
  if video_seen.hasBeat then
    redis.call('PEXPIRE', video_seen.keys[1], presence)
    redis.call('PEXPIRE', video_seen.keys[2], window)
  end
  if video_seen.isHigher then redis.call('HSET', KEYS[4], video, video_seen.peak) end
  if video_seen.isDirty then redis.call('SADD', KEYS[5], video) end
end
return answers
