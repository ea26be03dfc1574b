-- KEYS[11]: functions. ARGV: channel. Reply: the functions revision, all parts as a flat list.
return {redis.call('HGET', META, 'functions_revision') or '0', redis.call('HGETALL', KEYS[11])}
