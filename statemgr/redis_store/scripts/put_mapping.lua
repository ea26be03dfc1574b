-- ARGV: channel, mapping, name, document, state, reason, applied, expected revision or "", seen mappings revision or "".
-- Reply: "stored" and the record; or "revision" and the present one; or "name"; or "seen".
local mapping, name, document, state, reason, applied, expected, seen = unpack(ARGV, 2, 9)
if seen ~= '' and (redis.call('HGET', META, 'mappings_revision') or '0') ~= seen then return {'seen'} end
local packed = redis.call('HGET', MAPPINGS, mapping)
local present = packed and cmsgpack.unpack(packed)
local revision = present and present[4] or 0
if expected ~= '' and tonumber(expected) ~= revision then return {'revision', revision} end
local owner = redis.call('HGET', NAMES, name)
if owner and owner ~= mapping then return {'name'} end
if present then
  local same_end = (present[5] == 'Deleting') == (state == 'Deleting')
  if present[2] == name and present[3] == document and same_end then
    if (present[10] or '') ~= applied then
      for i = 8, 9 do present[i] = present[i] or 0 end
      present[10] = applied
      packed = cmsgpack.pack(present)
      redis.call('HSET', MAPPINGS, mapping, packed)
    end
    return {'stored', packed}
  end
  redis.call('HDEL', NAMES, present[2])
end
packed = cmsgpack.pack({
  mapping, name, document, revision + 1, state, reason, now_us(), present and present[8] or 0, present and present[9] or 0,
  applied, present and present[11] or 0, present and present[12] or ''
})
redis.call('HSET', MAPPINGS, mapping, packed)
redis.call('HSET', NAMES, name, mapping)
if redis.call('HSETNX', WANTED_OF, mapping, cmsgpack.pack({})) == 1 then
  redis.call('HSET', WANTED, mapping .. '/tracker', '')
  raise('version')
end
raise('mappings_revision')
wake()
return {'stored', packed}
