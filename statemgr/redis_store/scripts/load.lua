-- Without common.lua. KEYS: progress of the mappings concerned. ARGV, per shard: which of KEYS, shard.
-- Reply, flat, per shard: position, everything else; the latter nil when nothing was saved.
local found = {}
for i = 1, #ARGV, 2 do
  local saved = redis.call('HMGET', KEYS[tonumber(ARGV[i])], 'p/' .. ARGV[i + 1], 'd/' .. ARGV[i + 1])
  found[i], found[i + 1] = saved[1], saved[2]
end
return found
