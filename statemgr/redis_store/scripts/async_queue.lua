-- Comes before the scripts on the queue of asynchronous invocations. What belongs to a line of a partition has keys that
-- begin as that of the partition's lines does, so it is in the same slot of a cluster.
local AWAY = 9007199254740991 -- due never: it is with the partition's holder

local function line_keys(lines, line)
  local partition = string.match(lines, ':async_lines:(%d+)$')
  local prefix = string.sub(lines, 1, #lines - #partition - #'async_lines:')
  local place = partition .. '/' .. line
  return prefix .. 'async:' .. place, prefix .. 'async_due:' .. place, prefix .. 'async_state:' .. place
end

local function queue_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Has the shard a newer token than this?
local function stale(progress, shard, token)
  return tonumber(redis.call('HGET', progress, 't/' .. shard) or 0) > tonumber(token)
end

-- The last tenth of the server's memory is for leases and checkpoints: without any, the fleet stands still.
local function crowded()
  local told = redis.pcall('INFO', 'memory') -- a user may not be allowed to ask
  if type(told) ~= 'string' then return false end
  local used, most = string.match(told, '\nused_memory:(%d+)'), string.match(told, '\nmaxmemory:(%d+)')
  return used and most and tonumber(most) > 0 and used / most > 0.9
end

-- When its memory is full, Redis refuses a script's first write if that needs memory, and no later one. Taking and settling
-- must go on then: it is what makes room. So they begin with a write that needs none.
local function write_though_full() redis.call('HDEL', KEYS[2], '') end
