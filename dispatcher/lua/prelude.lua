-- Comes before every script here.
--
--   plan    hash   {prefix}:plan:<id>   plan, title, executor, timeout_ms, expires_ms, submitted_ms, state,
--                                       due_ms, token, attempts, wakes and, once they are known, started_ms,
--                                       applied_ms, apply_id, cause, ended_ms
--   due     zset   {prefix}:due         plan id -> ms at which the waker looks at the plan again
--   ended   list   {prefix}:ended:<id>  one element once the plan has ended, for those who wait for it
--
-- A plan's due_ms is the time before which nobody may act on it: the end of the lease while a step is under
-- way, the end of the wait while it is parked. `token` names the step that holds, or held, the lease.
-- Its place in `due` is never earlier than due_ms, and only as much later as a wake-up may take.
-- All times are milliseconds since 1970 on the Redis server's clock.

local FINAL = {observed = true, failed = true, cancelled = true, expired = true}

local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Numbers go through here on their way to a key: Lua would write large ones as 1.8e+12.
local function whole(number)
  return string.format('%.0f', number)
end
