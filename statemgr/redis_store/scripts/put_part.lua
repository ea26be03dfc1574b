-- KEYS[11]: functions, KEYS[12]: reserved concurrency. ARGV: channel, function, part, "1" if there is a document, the
-- document, "1" if there is a mark, the mark, seen functions revision or "". Reply: the part as stored; nothing: not seen.
local name, part, has, document, marks, applied, seen = unpack(ARGV, 2, 8)
if seen ~= '' and (redis.call('HGET', META, 'functions_revision') or '0') ~= seen then return false end
local field = name .. '/' .. part
if marks ~= '1' then
  local packed = redis.call('HGET', KEYS[11], field)
  applied = packed and cmsgpack.unpack(packed)[2] or ''
end
local packed = cmsgpack.pack({has == '1' and document, applied, now_us()})
redis.call('HSET', KEYS[11], field, packed)
if part == 'concurrency' then
  if has == '1' then
    redis.call('HSET', KEYS[12], name, document)
  else
    redis.call('HDEL', KEYS[12], name)
  end
end
raise('functions_revision')
raise('mappings_revision')
wake()
return packed
