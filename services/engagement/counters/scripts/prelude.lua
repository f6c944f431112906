-- Stands before every script. Milliseconds since 1970 by the clock of Redis, the only clock that all processes
-- share; within one script it stands still.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A number as Redis keeps it; %.0f because Lua would write a large one as 1.7e+12.
local function text(number)
  return string.format('%.0f', number)
end

-- Between which heartbeats, as scores, somebody is watching: those from the future are left by a clock that was
-- set back.
local function presence_range(now, presence)
  return '(' .. text(now - presence), text(now + presence)
end

-- Totals of videos by their ids, as numbers: one command for all of them.
local function totals(hash, count, first)
  local found = redis.call('HMGET', hash, unpack(ARGV, first, first + count - 1))
  for index = 1, count do found[index] = tonumber(found[index] or '0') end
  return found
end

-- Whether a shard takes writes for a generation, from a caller who has seen so many looks (collect.lua). A memory
-- with fewer is older than what the caller has seen: it was put back in time without a restart.
local function takes_writes(state, generation, looks)
  return state[1] == generation and tonumber(state[2] or '0') >= tonumber(looks)
end
