-- KEYS from 11 on: progress of the mappings concerned. ARGV: channel, node, floor, ttl_us, then per shard: which of
-- those keys (1 for KEYS[11]), mapping/shard. Reply, flat, per shard taken: its number (from 0), token, position, the
-- rest of its progress, its origin. Costs about 5 us a shard.
local node, floor, ttl_us = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_us()
reap(now)
local taken = {}
if redis.call('HEXISTS', MEMBERS, node) == 0 then return taken end

local function is_reserved(key)
  local reserved = redis.call('HGET', RESERVED, key)
  if not reserved then return false end
  local released_us, successor = string.match(reserved, '^(%d+) (.*)$')
  if successor ~= node and now < released_us + ttl_us then
    local facts = redis.call('HGET', MEMBERS, successor)
    if facts and string.match(facts, '^%d+ 0|') then return true end
  end
  redis.call('HDEL', RESERVED, key)
  return false
end

local highest, changed = highest_token(), false
for i = 5, #ARGV, 2 do
  local progress, key = KEYS[10 + ARGV[i]], ARGV[i + 1]
  if redis.call('HEXISTS', WANTED, key) == 1 then
    local shard = string.sub(key, string.find(key, '/', 1, true) + 1)
    local saved = redis.call('HMGET', progress, 't/' .. shard, 'p/' .. shard, 'd/' .. shard, 'o/' .. shard)
    local holding = redis.call('HGET', HOLDINGS, key)
    local token, holder = string.match(holding or '', '^(%d+) (.*)$')
    if holder == node and tonumber(saved[1] or 0) > tonumber(token) then holder = nil end -- overtaken: take it anew
    if not holder and not is_reserved(key) then
      highest = math.max(highest + 1, floor + 1, now)
      token, holder, changed = whole(highest), node, true
      redis.call('HSET', HOLDINGS, key, token .. ' ' .. node)
      redis.call('HSET', progress, 't/' .. shard, token)
    end
    if holder == node then
      local n = #taken
      taken[n + 1], taken[n + 2], taken[n + 3], taken[n + 4], taken[n + 5] = (i - 5) / 2, token, saved[2], saved[3], saved[4]
    end
  end
end
if changed then
  redis.call('HSET', META, 'token', whole(highest))
  snapshot_changed()
end
return taken
