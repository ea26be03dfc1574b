-- KEYS: holders, then one for each pool. ARGV: holder. Reply: nothing.
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do redis.call('HDEL', KEYS[i], ARGV[1]) end
return false
