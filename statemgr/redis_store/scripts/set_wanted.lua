-- KEYS[11]: the mapping's progress. ARGV: channel, mapping, token of its tracker, msgpack of the wanted source shards
-- (as in wanted_of), msgpack of origins (flat: shard, origin), then each wanted one's mapping/shard.
-- Reply: 1, or 0 if stale.
local mapping, token, wanted = unpack(ARGV, 2, 4)
if not speaks_for(mapping, token) then return 0 end
local origins = cmsgpack.unpack(ARGV[5])
for i = 1, #origins, 2 do redis.call('HSETNX', KEYS[11], 'o/' .. origins[i], origins[i + 1]) end
local before = redis.call('HGET', WANTED_OF, mapping)
if before == wanted then return 1 end
local stays = {}
for i = 6, #ARGV do stays[ARGV[i]] = true end
for _, row in ipairs(cmsgpack.unpack(before)) do
  local key = mapping .. '/' .. row[1]
  if stays[key] then
    stays[key] = false -- there already
  else
    redis.call('HDEL', WANTED, key)
    redis.call('HDEL', RESERVED, key)
  end
end
for key, new in pairs(stays) do
  if new then redis.call('HSET', WANTED, key, '') end
end
redis.call('HSET', WANTED_OF, mapping, wanted)
snapshot_changed()
return 1
