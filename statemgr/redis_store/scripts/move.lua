-- KEYS[11]: the mapping's progress; from 12 on the shards' parking lots. ARGV: channel, mapping, token of its tracker, number
-- of the wish, then per shard: shard, position or "", origin, the rest of its progress, and "" or msgpack of a change of its
-- parking lot: base, revision, positions to drop. Reply, as of save: (s)aved, s(t)ale or (i)ncomplete.
local mapping, token, wish = ARGV[2], ARGV[3], tonumber(ARGV[4])
if not speaks_for(mapping, token) then return 't' end
local record = cmsgpack.unpack(redis.call('HGET', MAPPINGS, mapping))
if (record[11] or 0) ~= wish or (record[12] or '') == '' then return 's' end
local changes = {}
for i = 5, #ARGV, 5 do
  if ARGV[i + 4] ~= '' then
    local change, lot = cmsgpack.unpack(ARGV[i + 4]), KEYS[12 + (i - 5) / 5]
    if change[1] ~= (redis.call('HGET', lot, 'rev') or '0') then return 'i' end
    changes[i] = change
  end
end
local fence = whole(math.max(highest_token() + 1, now_us()))
redis.call('HSET', META, 'token', fence)
for i = 5, #ARGV, 5 do
  local shard, position, lot = ARGV[i], ARGV[i + 1], KEYS[12 + (i - 5) / 5]
  redis.call('HSET', KEYS[11], 't/' .. shard, fence, 'o/' .. shard, ARGV[i + 2], 'd/' .. shard, ARGV[i + 3])
  if position == '' then
    redis.call('HDEL', KEYS[11], 'p/' .. shard)
  else
    redis.call('HSET', KEYS[11], 'p/' .. shard, position)
  end
  if changes[i] then
    for _, gone in ipairs(changes[i][3]) do redis.call('HDEL', lot, gone) end
    redis.call('HSET', lot, 'rev', changes[i][2])
  end
end
record[12] = ''
redis.call('HSET', MAPPINGS, mapping, cmsgpack.pack(record))
raise('mappings_revision')
wake()
return 's'
