-- ARGV: channel, mapping. Reply: its record, or nil.
return redis.call('HGET', MAPPINGS, ARGV[2])
