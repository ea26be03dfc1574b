-- KEYS[11]: offers. ARGV: channel, node, document, empty for none. Reply: nothing.
-- Those of nodes that are no members any more go with this one's: nobody else takes them away.
for _, other in ipairs(redis.call('HKEYS', KEYS[11])) do
  if redis.call('HEXISTS', MEMBERS, other) == 0 then redis.call('HDEL', KEYS[11], other) end
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[11], ARGV[2])
elseif redis.call('HEXISTS', MEMBERS, ARGV[2]) == 1 then
  redis.call('HSET', KEYS[11], ARGV[2], ARGV[3])
end
return false
