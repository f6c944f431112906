-- Part of every script. Milliseconds since 1970 by the clock of Redis, the only one that all processes share; it is constant within a
-- script call.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A number as text; %.0f because Lua would write a large one as 1.7e+12.
local function text(number)
  return string.format('%.0f', number)
end

-- The range of heartbeats of present viewers; heartbeats from the future are from before the clock was set back.
local function presence_range(now, presence)
  return '(' .. text(now - presence), text(now + presence)
end

-- Reads totals of videos by their ids with one command.
local function totals(hash, count, first)
  local found = redis.call('HMGET', hash, unpack(ARGV, first, first + count - 1))
  for index = 1, count do found[index] = tonumber(found[index] or '0') end
  return found
end

-- Whether a shard takes writes for a generation, from a caller that has seen this number of collections (collect.lua). Data with fewer
-- is older: Redis was restored from an older snapshot without a restart.
local function takes_writes(state, generation, looks)
  return state[1] == generation and tonumber(state[2] or '0') >= tonumber(looks)
end
