-- Reads the counters of videos of one shard. Writes nothing, so it needs no fence and runs on a replica as well.
--
-- In:  KEYS 1 meta, 2 views, 3 comments, then for each video: likes, viewers.
--      ARGV 1 generation of the keys, 2 presence in ms, 3 user or '', then the ids of the videos.
-- Out: {generation}, then for each video {views, comments, likes or -1, viewers, liked or -1}; {generation} alone
--      when the generation has changed: then the caller builds the keys again.
-- Atomic because totals are valid within their generation only.
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation ~= ARGV[1] then return { generation or '0' } end
local presence, user = tonumber(ARGV[2]), ARGV[3]
local youngest, oldest = presence_range(clock(), presence)
local count = #ARGV - 3
local views, comments = totals(KEYS[2], count, 4), totals(KEYS[3], count, 4)
local answers = { generation }
for index = 1, count do
  local likes = KEYS[2 + index * 2]
  local size = redis.call('SCARD', likes)
  local liked = -1
  if size > 0 and user ~= '' then liked = redis.call('SISMEMBER', likes, user) end
  answers[index + 1] = {
    views[index], comments[index], size - 1, redis.call('ZCOUNT', KEYS[3 + index * 2], youngest, oldest), liked
  }
end
return answers
