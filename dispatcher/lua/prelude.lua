-- Comes before every script here.
--
--   plan         hash    {prefix}:plan:<id>        see below
--   due          zset    {prefix}:due              plan id -> ms at which the waker looks at the plan again
--   line         zset    {prefix}:line:<target>    plans that want the target alone: id -> 0 for the one that
--                                                  holds it, else the microsecond since which it waits
--   ended        list    {prefix}:ended:<id>       one element once the plan has ended, for those who wait for it
--   completions  stream  {prefix}:completions:<batch>   an entry with the plan's id for each plan that has ended
--   halt         string  {prefix}:halt             the reason, while the dispatcher is halted
--   breaker      hash    {prefix}:breaker:<executor>    the workers' circuit breaker; `begin` only passes it on
--   counts       hash    {prefix}:counts           what has happened so far; fields that are only ever added to:
--                        submitted (plans), observed, failed, cancelled, expired (plans that ended so), steps (begun),
--                        late_ms (by how much they began after their plans were due, all together), leases_lost
--                        (that ended before their steps came back), wake_ups (sent by wakers), wake_ups_wasted (of
--                        all wake-ups, those that found nothing to do)
--
-- A plan's fields: order (what was submitted, as JSON), target, submitted_ms, state, due_ms; and where they apply:
-- conflict_policy (unless it is queue), expires_ms, batch, traceparent, token, leased, wakes, attempts, failure (of the last
-- attempt), cause (why it waits, or why it ended), started_ms, applied_ms, apply_id, doubtful_ms (when the last apply may have arrived whose answer nobody has), cancelled (the reason),
-- error (what the plan will end with, once its fault is stopped), ended_ms, released_ms. Few fields, for each of
-- them costs memory as long as the plan is in flight.
--
-- due_ms is the time before which nobody may act on the plan: the end of the lease while a step is under way, the
-- end of the wait while it is parked. `token` names the step that holds, or held, the lease; `leased` is 1 while it
-- does. The plan's place in `due` is never earlier than due_ms, and only as much later as a wake-up may take.
--
-- released_ms is for a plan that ended while its fault may still be alive: it holds its target until then.
-- All times are the Redis server's, in milliseconds since 1970 where nothing else is said. All keys share a hash
-- tag, so that scripts may reach the plans of a line by their ids.

local FINAL = {observed = true, failed = true, cancelled = true, expired = true}

local function server_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function server_ms()
  return math.floor(server_us() / 1000)
end

-- Numbers go through here on their way to a key: Lua would write large ones as 1.8e+12.
local function whole(number)
  return string.format('%.0f', number)
end

-- Add a field to those that are to be set, unless its value says nothing: '', false or nil.
local function add(fields, name, value)
  if value and value ~= '' then
    table.insert(fields, name)
    table.insert(fields, value)
  end
end

-- Make the plan due at `ms`, and have the waker look at it then.
local function set_due(plan_key, due_key, id, ms)
  redis.call('HSET', plan_key, 'due_ms', whole(ms))
  redis.call('ZADD', due_key, whole(ms), id)
end

-- Who is first in line for a target, and until when it is held by a plan that has ended. Nothing where nobody is.
-- The caller's own plan, if it asks for one, is known to go on.
local function first_in_line(prefix, target, now, own)
  local line_key = prefix .. 'line:' .. target
  while true do
    local id = redis.call('ZRANGE', line_key, 0, 0)[1]
    if not id or id == own then
      return id
    end
    local known = redis.call('HMGET', prefix .. 'plan:' .. id, 'state', 'released_ms')
    local released_ms = tonumber(known[2] or 0)
    if known[1] and not FINAL[known[1]] then
      return id
    elseif released_ms > now then
      return id, released_ms
    end
    redis.call('ZREM', line_key, id)
  end
end

-- Have the rest of this script succeed though the memory is full. Redis asks for its memory at a script's first write
-- only, in order not to stop halfway, and it never refuses to delete. For scripts that end faults, and write little.
local function write_even_if_full(prefix)
  redis.call('DEL', prefix .. 'nothing')
end
