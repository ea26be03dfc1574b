-- KEYS: reserved concurrency, counting, holders, then one for each pool. ARGV: holder, ttl_us, account concurrency,
-- holders and rank as the holder knew them last, then per pool: its function or "" for the shared one, in use, keep,
-- need, extra. Reply: live holders, rank, 1 if calm, then per pool: limit (-1: nothing is reserved), held, held by others.
--
-- When nobody has counted for a while, holders may be at work on their fallback shares without this being known here.
-- Until each had the time to come and say so, nobody gets more than its share.
local holder, ttl_us, account = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local known_holders, known_rank = tonumber(ARGV[4]), tonumber(ARGV[5])
local RESERVED, COUNTING, HOLDERS = KEYS[1], KEYS[2], KEYS[3]
local function whole(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local counted = redis.call('HMGET', COUNTING, 'last_us', 'calm_us')
local calm = math.min(tonumber(counted[2] or 0), now + ttl_us)
if not counted[1] or now - counted[1] > ttl_us / 2 then calm = now + ttl_us end
redis.call('HSET', COUNTING, 'last_us', whole(now), 'calm_us', whole(calm))

redis.call('ZADD', HOLDERS, whole(now + ttl_us), holder)
redis.call('ZREMRANGEBYSCORE', HOLDERS, '-inf', whole(now))
local live, holders, rank = {}, 0, 0
for _, id in ipairs(redis.call('ZRANGE', HOLDERS, 0, -1)) do
  live[id], holders = true, holders + 1
  if id < holder then rank = rank + 1 end
end

local reserved
local function limit_of(name)
  if name ~= '' then return tonumber(redis.call('HGET', RESERVED, name) or -1) end
  if not reserved then
    reserved = 0
    for _, number in ipairs(redis.call('HVALS', RESERVED)) do reserved = reserved + number end
  end
  return math.max(0, account - reserved)
end

local reply = {holders, rank, now >= calm and 1 or 0}
for i = 4, #KEYS do
  local at = 6 + (i - 4) * 5
  local in_use, keep = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local need, extra = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local limit, others, before = limit_of(ARGV[at]), 0, 0
  local held = redis.call('HGETALL', KEYS[i])
  for j = 1, #held, 2 do
    if held[j] == holder then
      before = tonumber(held[j + 1])
    elseif live[held[j]] then
      others = others + held[j + 1]
    else
      redis.call('HDEL', KEYS[i], held[j])
    end
  end
  local most = math.max(0, limit - others)
  if now < calm then
    local share = math.floor(limit / known_holders)
    if known_rank < limit % known_holders then share = share + 1 end
    most = math.min(most, math.max(0, share))
  end
  -- What is in use is so, whatever the limit; what was only kept may be gone.
  local mine = math.max(in_use, math.min(keep, math.max(before, in_use), most))
  local free = math.max(0, most - mine)
  local more = math.min(need, free)
  mine = mine + more + math.min(extra, math.floor((free - more) / holders))
  if mine > 0 then
    redis.call('HSET', KEYS[i], holder, mine)
    redis.call('PEXPIRE', KEYS[i], math.ceil(ttl_us / 500))
  elseif before > 0 then
    redis.call('HDEL', KEYS[i], holder)
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = limit, mine, others
end
return reply
