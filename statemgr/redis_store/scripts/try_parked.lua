-- ARGV: channel, mapping. Reply: how often this was asked for now, or 0 when there is no such mapping.
local packed = redis.call('HGET', MAPPINGS, ARGV[2])
if not packed then return 0 end
local record = cmsgpack.unpack(packed)
record[8], record[9] = record[8] or 0, (record[9] or 0) + 1
redis.call('HSET', MAPPINGS, ARGV[2], cmsgpack.pack(record))
redis.call('HINCRBY', META, 'mappings_revision', 1)
wake()
return record[9]
