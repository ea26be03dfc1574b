-- Without common.lua: the hot path. KEYS: meta, removed, then progress of the mappings concerned. ARGV[1]: msgpack, flat,
-- per update: which of KEYS, shard, token as text, position or "", 1 for a rewind or 0. ARGV from 2 on: the rest of each update's progress.
-- Packed since each argument costs the client time. Reply: a letter per update, (s)aved, s(t)ale or (b)ackward.
local updates, results, highest = cmsgpack.unpack(ARGV[1]), {}, nil
for i = 1, #updates, 5 do
  local progress, shard, token = KEYS[updates[i]], updates[i + 1], updates[i + 2]
  local position, forward, rest = updates[i + 3], updates[i + 4] == 0, ARGV[(i + 9) / 5]
  local saved = redis.call('HMGET', progress, 't/' .. shard, 'p/' .. shard)
  local newest, before = saved[1], saved[2]
  if not newest then
    newest = redis.call('HGET', KEYS[2], string.match(progress, ':progress:(.*)$')) or '0'
  end
  if newest ~= token and tonumber(newest) > tonumber(token) then
    results[#results + 1] = 't'
  elseif position ~= '' and forward and before and (#position < #before or (#position == #before and position < before)) then
    results[#results + 1] = 'b'
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
    results[#results + 1] = 's'
  end
end
return table.concat(results)
