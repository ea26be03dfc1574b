-- Comes before every script that works on the fleet as a whole (all but save and load).
-- KEYS 1 to 10: as below. ARGV[1]: the channel that wakes the others. Times and tokens are whole numbers below 2^53,
-- which Lua's doubles hold exactly; %.0f because tostring() would round them. No script takes keys it was not given,
-- but for those of the asynchronous queue (async_queue.lua).
local META, MEMBERS, EXPIRY, MAPPINGS, NAMES, REMOVED, WANTED, WANTED_OF, HOLDINGS, RESERVED = unpack(KEYS, 1, 10)

local function whole(number) return string.format('%.0f', number) end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function wake() redis.call('PUBLISH', ARGV[1], '') end

-- Raise a number by which nodes see that something changed. It comes from time, so that it never is again what it was, not
-- even when the last writes were lost by a fail-over.
local function raise(field)
  local before = tonumber(redis.call('HGET', META, field) or 0)
  redis.call('HSET', META, field, whole(math.max(before + 1, now_us())))
end

local function snapshot_changed()
  raise('version')
  wake()
end

-- End memberships: their holdings go with them. Looks through all holdings once, only when someone is gone.
local function end_members(nodes)
  local gone = {}
  for _, node in ipairs(nodes) do
    redis.call('HDEL', MEMBERS, node)
    redis.call('ZREM', EXPIRY, node)
    gone[node] = true
  end
  local holdings = redis.call('HGETALL', HOLDINGS)
  for i = 1, #holdings, 2 do
    if gone[string.match(holdings[i + 1], '^%d+ (.*)$')] then redis.call('HDEL', HOLDINGS, holdings[i]) end
  end
  snapshot_changed()
end

local function reap(now)
  local dead = redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', whole(now))
  if #dead > 0 then end_members(dead) end
end

-- The newest token of a shard: the one last leased or last written, or that of its mapping's removal.
local function token_of(progress, mapping, shard)
  return tonumber(redis.call('HGET', progress, 't/' .. shard) or redis.call('HGET', REMOVED, mapping) or 0)
end

local function highest_token() return tonumber(redis.call('HGET', META, 'token') or 0) end

-- May the holder of this tracker token still speak for the mapping? KEYS[11] is the mapping's progress.
local function speaks_for(mapping, token)
  if redis.call('HEXISTS', MAPPINGS, mapping) == 0 then return false end
  local newest = token_of(KEYS[11], mapping, 'tracker')
  if newest > tonumber(token) then return false end
  if newest < tonumber(token) then -- the store had lost it
    redis.call('HSET', KEYS[11], 't/tracker', token)
    if highest_token() < tonumber(token) then redis.call('HSET', META, 'token', token) end
  end
  return true
end

