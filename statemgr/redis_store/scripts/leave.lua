-- ARGV: channel, node. Reply: nothing.
if redis.call('HEXISTS', MEMBERS, ARGV[2]) == 1 then end_members({ARGV[2]}) end
return false
