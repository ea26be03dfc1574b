-- KEYS[11]: async, KEYS[12], KEYS[13]: lines of the two partitions. ARGV: channel, channel of events, mapping, the two
-- partitions' numbers and shards, line, meta, event, its size, most bytes. Reply: the partition's number; -1: full.
-- The first write is that of the event, so that a server without memory refuses all of it.
local mapping, line, size = ARGV[3], ARGV[8], tonumber(ARGV[11])
local held = redis.call('HMGET', KEYS[11], 'n/' .. ARGV[4], 'n/' .. ARGV[5], 'bytes')
if tonumber(held[3] or 0) + size > tonumber(ARGV[12]) then return -1 end
if crowded() then return -1 end
local chosen = tonumber(held[2] or 0) < tonumber(held[1] or 0) and 2 or 1
local number, shard, lines = ARGV[3 + chosen], ARGV[5 + chosen], KEYS[11 + chosen]
local stream = line_keys(lines, line)
redis.call('XADD', stream, '*', 'm', ARGV[9], 'e', ARGV[10])
redis.call('SADD', lines, line)
redis.call('HINCRBY', KEYS[11], 'n/' .. number, 1)
redis.call('HINCRBY', KEYS[11], 'bytes', size)
local key = mapping .. '/' .. shard
if redis.call('HEXISTS', WANTED, key) == 0 then
  local rows = cmsgpack.unpack(redis.call('HGET', WANTED_OF, mapping) or cmsgpack.pack({}))
  rows[#rows + 1] = {shard, 'source', 1}
  table.sort(rows, function(one, other) return one[1] < other[1] end)
  redis.call('HSET', WANTED, key, '')
  redis.call('HSET', WANTED_OF, mapping, cmsgpack.pack(rows))
  snapshot_changed()
end
if redis.call('HDEL', KEYS[11], 'idle/' .. number) == 1 then redis.call('PUBLISH', ARGV[2], number) end
return tonumber(number)
