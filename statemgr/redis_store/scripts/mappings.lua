-- ARGV: channel. Reply: the mappings revision, all records.
return {redis.call('HGET', META, 'mappings_revision') or '0', redis.call('HVALS', MAPPINGS)}
