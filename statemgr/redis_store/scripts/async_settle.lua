-- KEYS: progress, async, lines of the partition. ARGV: shard, token, partition, most bytes, then per event: line, id, its size,
-- ms until it is due again or "" when it is done, standing, and "" or the same without what the function answered, for when
-- there is no room. Reply: 1; 0 if stale.
if stale(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
write_though_full()
local now, done, bytes, room = queue_ms(), 0, 0, nil

local function fits(more)
  if not room then room = crowded() and 0 or ARGV[4] - (redis.call('HGET', KEYS[2], 'bytes') or 0) end
  return bytes + more <= room
end

for i = 5, #ARGV, 6 do
  local line, id, again = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local stream, due, state = line_keys(KEYS[3], line)
  if again == '' then
    if redis.call('XDEL', stream, id) == 1 then
      done, bytes = done + 1, bytes - ARGV[i + 2] - redis.call('HSTRLEN', state, id)
    end
    redis.call('ZREM', due, id)
    redis.call('HDEL', state, id)
    -- The stream itself stays, so that no id is ever given out again.
    if redis.call('XLEN', stream) == 0 then redis.call('SREM', KEYS[3], line) end
  elseif redis.call('ZSCORE', due, id) then
    redis.call('ZADD', due, now + again, id)
    local standing, had = ARGV[i + 4], redis.call('HSTRLEN', state, id)
    if ARGV[i + 5] ~= '' and not fits(#standing - had) then standing = ARGV[i + 5] end
    bytes = bytes + #standing - had
    redis.call('HSET', state, id, standing)
  end
end
if done > 0 then redis.call('HINCRBY', KEYS[2], 'n/' .. ARGV[3], -done) end
if bytes ~= 0 then redis.call('HINCRBY', KEYS[2], 'bytes', string.format('%.0f', bytes)) end
return 1
