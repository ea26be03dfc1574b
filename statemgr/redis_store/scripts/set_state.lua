-- KEYS[11]: the mapping's progress. ARGV: channel, mapping, token of its tracker, state, reason,
-- revision or "".
-- Reply: 1, or 0 if stale.
local mapping, token, state, reason, revision = unpack(ARGV, 2, 6)
if not speaks_for(mapping, token) then return 0 end
local record = cmsgpack.unpack(redis.call('HGET', MAPPINGS, mapping))
local current = revision == '' or tonumber(revision) == record[4]
if current and (record[5] ~= state or record[6] ~= reason) then
  record[5], record[6], record[7] = state, reason, now_us()
  redis.call('HSET', MAPPINGS, mapping, cmsgpack.pack(record))
  raise('mappings_revision')
  wake()
end
return 1
