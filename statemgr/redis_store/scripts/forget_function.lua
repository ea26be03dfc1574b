-- KEYS[11]: functions, KEYS[12]: reserved concurrency. ARGV: channel, function, then its fields. Reply: nothing.
if redis.call('HDEL', KEYS[11], unpack(ARGV, 3)) > 0 then
  redis.call('HDEL', KEYS[12], ARGV[2])
  raise('functions_revision')
  raise('mappings_revision')
  wake()
end
return false
