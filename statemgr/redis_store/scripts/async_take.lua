-- KEYS: progress, async, lines of the partition. ARGV: shard, token, partition, most, most bytes, each line's limit, turn, then
-- line, limit for those that have another one. Reply: false if stale; or ms until others are due (-1: none), then per event:
-- line, id, its age in ms, meta, event, standing or "".
if stale(KEYS[1], ARGV[1], ARGV[2]) then return false end
write_though_full()
local most, max_bytes, each, turn = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local limits = {}
for i = 8, #ARGV, 2 do limits[ARGV[i]] = tonumber(ARGV[i + 1]) end
local now, count, size, next_ms, reply = queue_ms(), 0, 0, -1, {0}
local lines = redis.call('SMEMBERS', KEYS[3])
table.sort(lines)

local function give(line, entry, standing)
  local fields, at = entry[2], #reply
  local accepted = tonumber(string.match(entry[1], '^(%d+)'))
  reply[at + 1], reply[at + 2], reply[at + 3] = line, entry[1], math.max(0, now - accepted)
  reply[at + 4], reply[at + 5], reply[at + 6] = fields[2], fields[4], standing
  count, size = count + 1, size + #fields[4] + #standing
end

local function full() return count >= most or (size >= max_bytes and count > 0) end

for n = 1, #lines do
  local line = lines[(n + turn) % #lines + 1]
  local stream, due, state = line_keys(KEYS[3], line)
  local room = limits[line] or each
  if room > 0 and not full() then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, room)) do
      if full() then break end
      local entry = redis.call('XRANGE', stream, id, id)[1]
      if entry then
        give(line, entry, redis.call('HGET', state, id) or '')
        redis.call('ZADD', due, AWAY, id)
        room = room - 1
      else
        redis.call('ZREM', due, id)
        redis.call('HDEL', state, id)
      end
    end
    local cursor = redis.call('HGET', state, 'cursor') or '0'
    local before = cursor
    while room > 0 and not full() do
      local entry = redis.call('XRANGE', stream, '(' .. cursor, '+', 'COUNT', 1)[1]
      if not entry then break end
      give(line, entry, '')
      redis.call('ZADD', due, AWAY, entry[1])
      cursor, room = entry[1], room - 1
    end
    if cursor ~= before then redis.call('HSET', state, 'cursor', cursor) end
  end
  local later = redis.call('ZRANGEBYSCORE', due, '(' .. now, '(' .. string.format('%.0f', AWAY), 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] and (next_ms < 0 or later[2] - now < next_ms) then next_ms = later[2] - now end
end
if count == 0 then
  local idle = 'idle/' .. ARGV[3]
  if redis.call('HEXISTS', KEYS[2], idle) == 0 then redis.call('HSET', KEYS[2], idle, '') end
end
reply[1] = next_ms
return reply
