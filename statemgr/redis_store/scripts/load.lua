-- Without common.lua. KEYS: progress of the mappings concerned. ARGV, per shard: which of KEYS, shard.
-- Reply, flat, per shard: position, everything else, origin; nil for what was not saved.
local found = {}
for i = 1, #ARGV, 2 do
  local shard = ARGV[i + 1]
  local saved = redis.call('HMGET', KEYS[tonumber(ARGV[i])], 'p/' .. shard, 'd/' .. shard, 'o/' .. shard)
  local n = #found
  found[n + 1], found[n + 2], found[n + 3] = saved[1], saved[2], saved[3]
end
return found
