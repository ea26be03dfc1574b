-- join and tick. ARGV: channel, node, ttl_us, "DRAINING|ROLES", address, a fresh incarnation id, "join" or "tick".
-- Reply: incarnation, version, mappings revision, 1 if a member, microseconds to the next expiry of another (-1: none).
local node, ttl_us, standing, address = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now = now_us()
reap(now)
local before = redis.call('HGET', MEMBERS, node)
local member = before or ARGV[7] == 'join'
if member then
  local facts = ttl_us .. ' ' .. standing .. ' ' .. address
  if before ~= facts then
    redis.call('HSET', MEMBERS, node, facts)
    local standing_before, address_before = string.match(before or '', '^%d+ (%S+) (.*)$')
    if standing_before ~= standing then
      snapshot_changed()
    elseif address_before ~= address then
      raise('version')
    end
  end
  redis.call('ZADD', EXPIRY, whole(now + ttl_us), node)
end
local meta = redis.call('HMGET', META, 'incarnation', 'version', 'mappings_revision')
if not meta[1] then
  meta[1] = ARGV[6]
  redis.call('HSET', META, 'incarnation', meta[1])
end
local next_us = -1
local soonest = redis.call('ZRANGE', EXPIRY, 0, 1, 'WITHSCORES')
for i = 1, #soonest, 2 do
  if soonest[i] ~= node and next_us < 0 then next_us = math.max(0, soonest[i + 1] - now) end
end
return {meta[1], meta[2] or '0', meta[3] or '0', member and 1 or 0, next_us}
