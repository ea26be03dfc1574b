-- KEYS[11]: functions, KEYS[12]: reserved concurrency. ARGV: channel, function, seen functions revision or "", then the function's
-- fields. Reply: how many of these there were; nothing: not seen.
if ARGV[3] ~= '' and (redis.call('HGET', META, 'functions_revision') or '0') ~= ARGV[3] then return false end
local gone = redis.call('HDEL', KEYS[11], unpack(ARGV, 4))
if gone > 0 then
  redis.call('HDEL', KEYS[12], ARGV[2])
  raise('functions_revision')
  raise('mappings_revision')
  wake()
end
return gone
