-- KEYS[11]: codes. ARGV: channel, digest, "1" if all of it is there now. Reply: "1" if all of it was there before.
local noted = redis.call('HGET', KEYS[11], ARGV[2])
local complete = noted and string.match(noted, ' (.*)$') or ''
redis.call('HSET', KEYS[11], ARGV[2], whole(now_us()) .. ' ' .. (ARGV[3] == '1' and '1' or complete))
return complete
