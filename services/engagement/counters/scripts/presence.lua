-- Records heartbeats and departures of viewers of videos of one shard, and counts views.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, 4 peaks, 5 dirty, then for each video: viewers, sessions, clients, likes.
--      ARGV 1 generation, 2 looks, 3 presence in ms, 4 ms watched that make a view, 5 ms in which a viewer is one
--      view, 6 most clients of a viewer, 7 count of videos, then their ids, then for each operation: index of its
--      video, viewer, client or '', '1' or '0' (leaves).
-- Out: for each operation {views, comments, likes or -1, viewers, liked or -1}.
--      FENCED when the generation does not take writes.
-- Atomic because the session decides whether a view is counted, and records that it was: of two concurrent heartbeats, one must see
-- the other.
--
-- A session is the time since which the viewer has watched without a gap or, negative, the time at which the view was counted. One
-- sorted set holds both; old ones of both kinds are at the two ends of one range.
--
-- A viewer may watch with several clients (tabs, devices). The hash `clients` has the last heartbeat of each, as "ms name" lines, for
-- viewers with a named client only; any other viewer has one client without a name, and the score in `viewers` is its heartbeat.
local state = redis.call('HMGET', KEYS[1], 'open', 'looks', 'since')
if not takes_writes(state, ARGV[1], ARGV[2]) then return redis.error_reply('FENCED') end
local presence, watched, window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local maxClients, count = tonumber(ARGV[6]), tonumber(ARGV[7])
local now = clock()
local youngest, oldest = presence_range(now, presence)
-- While a generation is young, a viewer without a session may have been watching and been counted before the data was lost: the view
-- is not counted again.
local since = tonumber(state[3] or '0')
local isYoung = now >= since and now < since + presence
local views, comments, peaks = totals(KEYS[2], count, 8), totals(KEYS[3], count, 8), totals(KEYS[4], count, 8)
local sizes, hasClients, dirty = {}, {}, {}
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
    views[index] = redis.call('HINCRBY', KEYS[2], ARGV[7 + index], 1)
    dirty[index] = true
    set_session(sessions, viewer, -now)
  end
end

-- Removes viewers whose presence has expired, with their clients.
local function remove_expired(index, viewers, clients)
  local before = text(now - presence)
  hasClients[index] = redis.call('EXISTS', clients) == 1
  if hasClients[index] then
    local expired = redis.call('ZRANGEBYSCORE', viewers, '-inf', before)
    for start = 1, #expired, 5000 do
      redis.call('HDEL', clients, unpack(expired, start, math.min(start + 4999, #expired)))
    end
  end
  redis.call('ZREMRANGEBYSCORE', viewers, '-inf', before)
end

-- The present clients of a viewer but one, oldest first.
local function other_clients(viewers, clients, viewer, client)
  local packed = redis.call('HGET', clients, viewer)
  if not packed then
    local last = client ~= '' and redis.call('ZSCORE', viewers, viewer)
    return last and { { at = tonumber(last), name = '' } } or {}
  end
  local others = {}
  for at, name in string.gmatch(packed, '(%d+) ([^\n]*)\n') do
    if name ~= client and tonumber(at) > now - presence then others[#others + 1] = { at = tonumber(at), name = name } end
  end
  return others
end

local function store_clients(index, clients, viewer, list)
  local lines = {}
  for position = math.max(1, #list - maxClients + 1), #list do
    lines[#lines + 1] = text(list[position].at) .. ' ' .. list[position].name .. '\n'
  end
  redis.call('HSET', clients, viewer, table.concat(lines))
  redis.call('PEXPIRE', clients, presence)
  hasClients[index] = true
end

local function leave(index, viewers, clients, viewer, client)
  if client == '' and not hasClients[index] then
    redis.call('ZREM', viewers, viewer)
    return
  end
  local others = other_clients(viewers, clients, viewer, client)
  if #others == 0 then
    redis.call('ZREM', viewers, viewer)
    redis.call('HDEL', clients, viewer)
    return
  end
  redis.call('ZADD', viewers, text(others[#others].at), viewer)
  store_clients(index, clients, viewer, others)
end

for p = 8 + count, #ARGV, 4 do
  local index, viewer, client, isThere = tonumber(ARGV[p]), ARGV[p + 1], ARGV[p + 2], ARGV[p + 3] == '1'
  local first = 2 + index * 4
  local viewers, sessions, clients, likes = KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3]
  if not sizes[index] then
    sizes[index] = redis.call('SCARD', likes)
    remove_expired(index, viewers, clients)
  end
  if isThere then
    if client ~= '' or (hasClients[index] and redis.call('HEXISTS', clients, viewer) == 1) then
      local list = other_clients(viewers, clients, viewer, client)
      list[#list + 1] = { at = now, name = client }
      store_clients(index, clients, viewer, list)
    end
    beat(index, viewers, sessions, viewer)
    redis.call('PEXPIRE', viewers, presence)
  else
    leave(index, viewers, clients, viewer, client)
  end
  local present = redis.call('ZCOUNT', viewers, youngest, oldest)
  if present > peaks[index] then
    peaks[index] = present
    redis.call('HSET', KEYS[4], ARGV[7 + index], present)
    dirty[index] = true
  end
  local liked = -1
  if sizes[index] > 0 then liked = redis.call('SISMEMBER', likes, viewer) end
  answers[#answers + 1] = { views[index], comments[index], sizes[index] - 1, present, liked }
end

for index in pairs(dirty) do redis.call('SADD', KEYS[5], ARGV[7 + index]) end
return answers
