-- KEYS: nothing, async, then the lines of all partitions. Reply: events, bytes, age of the oldest in ms or -1.
local counts, events, bytes, oldest = redis.call('HGETALL', KEYS[2]), 0, 0, -1
for i = 1, #counts, 2 do
  if counts[i] == 'bytes' then bytes = counts[i + 1] end
  if string.sub(counts[i], 1, 2) == 'n/' then events = events + counts[i + 1] end
end
local now = queue_ms()
for i = 3, #KEYS do
  for _, line in ipairs(redis.call('SMEMBERS', KEYS[i])) do
    local stream = line_keys(KEYS[i], line)
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if first then oldest = math.max(oldest, now - string.match(first[1], '^(%d+)')) end
  end
end
return {events, tonumber(bytes), math.floor(oldest)}
