-- ARGV: channel, mapping, wish. Reply: the wish's number, or 0 when there is no such mapping.
local packed = redis.call('HGET', MAPPINGS, ARGV[2])
if not packed then return 0 end
local record = cmsgpack.unpack(packed)
for i = 8, 9 do record[i] = record[i] or 0 end
record[10] = record[10] or ''
record[11], record[12] = (record[11] or 0) + 1, ARGV[3]
redis.call('HSET', MAPPINGS, ARGV[2], cmsgpack.pack(record))
raise('mappings_revision')
wake()
return record[11]
