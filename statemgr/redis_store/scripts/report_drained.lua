-- KEYS[11]: the mapping's progress. ARGV: channel, mapping, token of the shard's lease, shard. Reply: 1, or 0 if stale.
local mapping, token, shard = unpack(ARGV, 2, 4)
local packed = redis.call('HGET', MAPPINGS, mapping)
if not packed or token_of(KEYS[11], mapping, shard) > tonumber(token) then return 0 end
local record = cmsgpack.unpack(packed)
record[8] = (record[8] or 0) + 1
redis.call('HSET', MAPPINGS, mapping, cmsgpack.pack(record))
raise('mappings_revision')
wake()
return 1
