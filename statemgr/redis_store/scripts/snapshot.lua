-- ARGV: channel. Reply: now_us, version, and as flat lists members, expiry, wanted_of, holdings, reserved.
local now = now_us()
reap(now)
return {
  now,
  redis.call('HGET', META, 'version') or '0',
  redis.call('HGETALL', MEMBERS),
  redis.call('ZRANGE', EXPIRY, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', WANTED_OF),
  redis.call('HGETALL', HOLDINGS),
  redis.call('HGETALL', RESERVED),
}
