-- KEYS[11]: the mapping's progress; from 12 on the shards' parking lots. ARGV: channel, mapping, token of its tracker, the
-- rest of the tracker's progress, then the shards. Reply: 1, or 0 if stale. What was written under a lease on one of them is stale from now on.
local mapping, token = ARGV[2], ARGV[3]
if not speaks_for(mapping, token) then return 0 end
for i = 5, #ARGV do
  for _, field in ipairs({'t/', 'p/', 'o/', 'd/'}) do redis.call('HDEL', KEYS[11], field .. ARGV[i]) end
end
for i = 12, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('HSET', KEYS[11], 'd/tracker', ARGV[4])
local tombstone = whole(highest_token() + 1)
redis.call('HSET', META, 'token', tombstone)
redis.call('HSET', REMOVED, mapping, tombstone)
return 1
