-- Precedes every script of this folder.
--
--   plan         hash    {prefix}:plan:<id>        see below
--   due          zset    {prefix}:due              plan id -> ms at which a worker must act on the plan
--   line         zset    {prefix}:line:<target>    plans that want the target for themselves: id -> 0 for its holder,
--                                                  otherwise the microsecond since which it waits
--   ended        list    {prefix}:ended:<id>       one element once the plan has ended, for clients that wait
--   completions  stream  {prefix}:completions:<batch>   one entry with the plan's id for each plan that has ended
--   batch        list    {prefix}:batch:<batch>    the batch's plans, in the order of submission
--   gone         hash    {prefix}:gone             batch -> how many of its plans' records have expired
--   history      zset    {prefix}:history          plans whose records exist: id -> microsecond of its submission
--   endings      list    {prefix}:endings          plans that have ended, in the order of their ends: 'ms id batch ...',
--                                                  with ms = when the record expires. Then `fetch` removes the plan from
--                                                  the history, and the batch of which it was the last one
--   halt         string  {prefix}:halt             the reason, while the dispatcher is halted
--   reached      string  {prefix}:reached          submitted_ms of the youngest plan whose first message arrived
--   doubts       zset    {prefix}:doubts           plans that ended while their faults may be alive:
--                                                  id -> ms at which a worker must look at the fault again
--   beside       set     {prefix}:beside:<target>  plans in flight that share the target
--   near         set     {prefix}:near:<server>[:<service>]  plans whose faults may hit requests of other targets of
--                        this Executor. Those of different services are apart if no fault hits another service
--   ids          hash    {prefix}:ids:<executor>   id of a fault -> the plan in flight whose fault has it, unless
--                                                no other fault can have it
--   aside        hash    {prefix}:aside            id -> why no worker of this version can read the plan
--   breaker      hash    {prefix}:breaker:<executor>    the circuit breaker; `fetch` returns its state
--   counts       hash    {prefix}:counts           totals that only grow: submitted (plans), observed, failed,
--                        cancelled, expired (plans by their end), steps (leases granted), late_ms (by how much
--                        leases began after their plans were due, summed up), leases_lost (leases that ended before
--                        their steps were settled), messages_lost (plans begun without the message they waited for)
--
-- A plan's fields: v (version of this schema), order (what was submitted, as JSON), target, submitted_ms, state,
-- due_ms (when its next step is due), lease; and if they apply: conflict_policy (unless it is queue), expires_ms,
-- batch (ids of its batches, with spaces between), tags (the same), traceparent; retries (Celery messages sent after
-- the first), attempts, failure (of the last attempt), failures (the last failed attempts, as JSON); cause (why it
-- waits, or why it ended), started_ms, applied_ms, apply_id; applying_ms (when an apply began that must not be
-- repeated); doubtful_ms (when the last apply without an answer may have arrived); not_after_ms (until when it may
-- begin its fault); sent_ms (its first apply), takes_effect_ms, began_ms, over_ms (of the fault, as the Executor
-- says); skew_ms (by how much these were moved); looked_ms (when its status was read last); stopping_ms (since when it
-- is being stopped); overlapped (if another plan's fault was on its target meanwhile); twin (another plan whose fault
-- has the same id); seen, cancelled (the reason), error (what the plan ends with once its fault is stopped); ended_ms,
-- released_ms, released (why a person released its target); doubt (why it is unknown whether its fault is over, once
-- it has ended); stuck_ms (since when it waits for a target in doubt). Few fields, because each costs memory while the
-- plan is in flight.
--
-- lease   'message <n>'         the Celery message with retries = n begins the next step; `due` holds when a worker
--                               stops waiting for that message
--         'held <token>'        a worker carries a step out; `due` holds the lease's end
--         'parked'              the plan waits for its time in `due`
-- The token of the step that wrote it follows 'message <n>' and 'parked'. It identifies the same decision, if that is
-- sent again because its answer was lost.
--
-- released_ms is for a plan that ended while its fault may still be alive: it keeps its target until then. If there is
-- a doubt, that is until the fault is known to be over, or a person releases the target.
-- All times are the Redis server's, in milliseconds since 1970 unless a name says otherwise. All keys share a hash
-- tag, so that scripts may reach the plans of a line by their ids.

local VERSION = '1'
local NEVER_MS = 32503680000000
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

-- Add a field to those that must be set, unless its value is absent: '', false or nil.
local function add(fields, name, value)
  if value and value ~= '' then
    table.insert(fields, name)
    table.insert(fields, value)
  end
end

-- Make the plan due at `ms`.
local function set_due(plan_key, due_key, id, ms)
  redis.call('HSET', plan_key, 'due_ms', whole(ms))
  redis.call('ZADD', due_key, whole(ms), id)
end

-- The first plan in line for a target, and until when a plan that has ended holds it. Nothing if the line is empty.
-- The caller's own plan, if it asks for one, is known to go on.
local function first_in_line(prefix, target, now, own)
  local line_key = prefix .. 'line:' .. target
  while true do
    local id = redis.call('ZRANGE', line_key, 0, 0)[1]
    if not id or id == own then
      return id
    end
    local known = redis.pcall('HMGET', prefix .. 'plan:' .. id, 'state', 'released_ms')
    local released_ms = tonumber(known[2]) or 0
    if known[1] and not FINAL[known[1]] then
      return id
    elseif released_ms > now then
      return id, released_ms
    end
    redis.call('ZREM', line_key, id)
  end
end

-- The plan has ended: readers of the batch learn that.
local function complete(prefix, batch, id, keep_s)
  local completions_key = prefix .. 'completions:' .. batch
  redis.call('XADD', completions_key, '*', 'id', id)
  redis.call('EXPIRE', completions_key, keep_s)
end

-- The plan has ended: it leaves the history and these batches once its record has expired, keep_s from now.
local function forget_later(prefix, now, id, batches, keep_s)
  local ending = whole(now + keep_s * 1000) .. ' ' .. id
  redis.call('RPUSH', prefix .. 'endings', batches and ending .. ' ' .. batches or ending)
end

-- Have the rest of this script succeed though the memory is full. Redis asks for its memory at a script's first write
-- only, in order not to stop halfway, and it never refuses to delete. For scripts that end faults, and write little.
local function write_even_if_full(prefix)
  redis.call('DEL', prefix .. 'nothing')
end

-- A plan that waits in line is due at `ms`, but not before its `start_time`. Nothing happens if it has begun.
local function wake(prefix, due_key, line_key, id, ms)
  local plan_key = prefix .. 'plan:' .. id
  local known = redis.pcall('HMGET', plan_key, 'started_ms', 'lease', 'submitted_ms')
  if not known[1] and known[2] and string.sub(known[2], 1, 6) == 'parked' then
    local since_ms = math.floor(redis.call('ZSCORE', line_key, id) / 1000)
    local has_start_time = since_ms ~= tonumber(known[3])  -- if not, it may begin though the clock was set back
    set_due(plan_key, due_key, id, has_start_time and math.max(ms, since_ms) or ms)
  end
end

-- A plan gives its target up, `alive_ms` from now. The next plan in line need not wait for its own look at the line.
local function pass_on(prefix, due_key, now, id, plan_key, target, alive_ms)
  local line_key = prefix .. 'line:' .. target
  if alive_ms > 0 then
    redis.call('HSET', plan_key, 'released_ms', whole(now + alive_ms))
  else
    redis.call('ZREM', line_key, id)
  end
  local next_id, until_ms = first_in_line(prefix, target, now)
  if next_id == id then
    next_id = redis.call('ZRANGE', line_key, 1, 1)[1]
  end
  if next_id then
    wake(prefix, due_key, line_key, next_id, until_ms or now)
  end
end

-- The fault of a plan that ended in doubt is over. Its removal arrives at the target in `alive_ms`.
local function settle_doubt(prefix, due_key, now, keep_s, id, plan_key, target, alive_ms)
  redis.call('HDEL', plan_key, 'doubt')
  redis.call('HSET', plan_key, 'lease', 'parked', 'released_ms', whole(now))
  redis.call('EXPIRE', plan_key, keep_s)
  redis.call('ZREM', prefix .. 'doubts', id)
  redis.call('SREM', prefix .. 'beside:' .. target, id)
  pass_on(prefix, due_key, now, id, plan_key, target, alive_ms)
end
