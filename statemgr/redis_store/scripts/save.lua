-- Without common.lua: the hot path. KEYS: meta, removed, progress of the mappings concerned, then the parking lots that change.
-- ARGV[1]: msgpack, flat, per update: which of KEYS, shard, token as text, position or "", 1 for a rewind or 0, which of KEYS is
-- its parking lot or 0. Then the rest of each update's progress, then per change of a parking lot msgpack of base or "" to replace
-- all, revision, positions to drop and positions to put, followed by their records. Packed since each argument costs the
-- client time. Reply: a letter per update, (s)aved, s(t)ale, (b)ackward or (i)ncomplete.
local updates, results, highest = cmsgpack.unpack(ARGV[1]), {}, nil
local at = 1 + #updates / 6 -- the argument before the next change
for i = 1, #updates, 6 do
  local progress, shard, token = KEYS[updates[i]], updates[i + 1], updates[i + 2]
  local position, forward, lot, rest = updates[i + 3], updates[i + 4] == 0, KEYS[updates[i + 5]], ARGV[(i + 11) / 6]
  local change, records
  if lot then
    change, records = cmsgpack.unpack(ARGV[at + 1]), at + 1
    at = records + #change[4]
  end
  local saved = redis.call('HMGET', progress, 't/' .. shard, 'p/' .. shard)
  local newest, before = saved[1], saved[2]
  if not newest then
    newest = redis.call('HGET', KEYS[2], string.match(progress, ':progress:(.*)$')) or '0'
  end
  if newest ~= token and tonumber(newest) > tonumber(token) then
    results[#results + 1] = 't'
  elseif position ~= '' and forward and newest == token and before and (#position < #before or (#position == #before and position < before)) then
    results[#results + 1] = 'b'
  elseif change and change[1] ~= '' and change[1] ~= (redis.call('HGET', lot, 'rev') or '0') then
    results[#results + 1] = 'i'
  else
    if newest ~= token then -- the store had lost it
      redis.call('HSET', progress, 't/' .. shard, token)
      highest = highest or tonumber(redis.call('HGET', KEYS[1], 'token') or 0)
      if highest < tonumber(token) then
        highest = tonumber(token)
        redis.call('HSET', KEYS[1], 'token', token)
      end
    end
    if position ~= '' then
      redis.call('HSET', progress, 'p/' .. shard, position, 'd/' .. shard, rest)
    else
      redis.call('HSET', progress, 'd/' .. shard, rest)
    end
    if change then
      if change[1] == '' then redis.call('UNLINK', lot) end
      for _, gone in ipairs(change[3]) do redis.call('HDEL', lot, gone) end
      for n, put in ipairs(change[4]) do redis.call('HSET', lot, put, ARGV[records + n]) end
      redis.call('HSET', lot, 'rev', change[2])
    end
    results[#results + 1] = 's'
  end
end
return table.concat(results)
