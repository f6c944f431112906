-- Reads the counters of videos of one shard. Writes nothing, so it needs no fence and runs on a replica as well.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, then for each video: likes, viewers.
--      ARGV 1 generation of the keys, 2 presence in ms, 3 user or '', then the ids of the videos.
-- Out: {generation}, then for each video {views, comments, likes or -1, viewers, liked or -1}; {generation} alone
--      when it is another one, and the keys have to be named anew.
-- Atomic because totals mean something within their generation only.
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation ~= ARGV[1] then return { generation or '0' } end
local presence, user = tonumber(ARGV[2]), ARGV[3]
local now = clock()
local answers = { generation }
for index = 1, #ARGV - 3 do
  local video, likes = ARGV[3 + index], KEYS[2 + index * 2]
  local size = redis.call('SCARD', likes)
  local liked = -1
  if size > 0 and user ~= '' then liked = redis.call('SISMEMBER', likes, user) end
  answers[#answers + 1] = {
    tonumber(redis.call('HGET', KEYS[2], video) or '0'), tonumber(redis.call('HGET', KEYS[3], video) or '0'), size - 1,
    watching(KEYS[3 + index * 2], now, presence), liked
  }
end
return answers
