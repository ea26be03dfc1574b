-- ARGV: channel. Reply: nothing. Writes, so that a replica or a full server refuses.
redis.call('HSET', META, 'pinged_us', whole(now_us()))
return false
