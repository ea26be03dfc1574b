-- KEYS[11]: the mapping's progress; from 12 on the parking lots of its shards. ARGV: channel, mapping, token of its tracker.
-- Reply: 1, or 0 if stale.
-- Leaves a tombstone in `removed`, so that a late write under an old lease brings nothing back. Beyond 1,000 tombstones
-- those older than a week go: tokens are about the time in microseconds.
local mapping, token = ARGV[2], ARGV[3]
if not speaks_for(mapping, token) then return 0 end
local function drop(table_key)
  for _, key in ipairs(redis.call('HKEYS', table_key)) do
    if string.sub(key, 1, #mapping + 1) == mapping .. '/' then redis.call('HDEL', table_key, key) end
  end
end
local record = cmsgpack.unpack(redis.call('HGET', MAPPINGS, mapping))
redis.call('HDEL', NAMES, record[2])
redis.call('HDEL', MAPPINGS, mapping)
for _, row in ipairs(cmsgpack.unpack(redis.call('HGET', WANTED_OF, mapping))) do
  redis.call('HDEL', WANTED, mapping .. '/' .. row[1])
end
redis.call('HDEL', WANTED, mapping .. '/tracker')
redis.call('HDEL', WANTED_OF, mapping)
drop(HOLDINGS)
drop(RESERVED)
for i = 11, #KEYS do redis.call('UNLINK', KEYS[i]) end
local tombstone = whole(highest_token() + 1)
redis.call('HSET', META, 'token', tombstone)
if redis.call('HLEN', REMOVED) >= 1000 then
  local removed, week_ago = redis.call('HGETALL', REMOVED), now_us() - 7 * 86400 * 1000000
  for i = 1, #removed, 2 do
    if tonumber(removed[i + 1]) < week_ago then redis.call('HDEL', REMOVED, removed[i]) end
  end
end
redis.call('HSET', REMOVED, mapping, tombstone)
raise('mappings_revision')
snapshot_changed()
return 1
