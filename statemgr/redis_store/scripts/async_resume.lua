-- KEYS: progress, async, lines of the partition. ARGV: shard, token, partition, then line and id of each event that its holder
-- has. Reply: 1; 0 if stale.
if stale(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
write_though_full()
local now, away = queue_ms(), string.format('%.0f', AWAY)
local held = {}
for i = 4, #ARGV, 2 do held[ARGV[i] .. '/' .. ARGV[i + 1]] = true end
for _, line in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local _, due = line_keys(KEYS[3], line)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, away, away)) do
    if not held[line .. '/' .. id] then redis.call('ZADD', due, now, id) end
  end
end
return 1
