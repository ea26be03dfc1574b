-- ARGV: channel, then per lease: mapping/shard, "TOKEN NODE" as held, successor or "". Reply: nothing.
local changed, now = false, now_us()
for i = 2, #ARGV, 3 do
  local key, held, successor = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HGET', HOLDINGS, key) == held then
    redis.call('HDEL', HOLDINGS, key)
    if successor ~= '' then redis.call('HSET', RESERVED, key, whole(now) .. ' ' .. successor) end
    changed = true
  end
end
if changed then snapshot_changed() end
return false
