-- KEYS[11]: offers. ARGV: channel. Reply: a flat list of nodes and documents, of present members only.
local now = now_us()
local all, live = redis.call('HGETALL', KEYS[11]), {}
for i = 1, #all, 2 do
  local expires = redis.call('ZSCORE', EXPIRY, all[i])
  if expires and tonumber(expires) > now then
    live[#live + 1] = all[i]
    live[#live + 1] = all[i + 1]
  end
end
return live
