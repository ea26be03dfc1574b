-- KEYS[11]: codes, KEYS[12]: the code. ARGV: channel, digest, age in microseconds. Drops it unless it was noted later.
local noted = redis.call('HGET', KEYS[11], ARGV[2])
if noted and tonumber(string.match(noted, '^%d+')) <= now_us() - tonumber(ARGV[3]) then
  redis.call('HDEL', KEYS[11], ARGV[2])
  redis.call('DEL', KEYS[12])
end
return false
