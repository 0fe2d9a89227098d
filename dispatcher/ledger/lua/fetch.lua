-- fetch(KEYS: due; ARGV: key prefix, queue or '', token, lease_ms, recheck_ms, patience_ms, limit,
--       reaches or '', id, retries, id, retries, ...)
--   -> {ms until the next plan is due or -1, number of plans in flight, {an answer for each named plan},
--       {a lease for each due plan}}
-- Grants leases: of the plans that Celery messages name by id and number of retries, and of up to `limit` due plans.
-- Plans that ended in doubt come last: few of them, because nothing waits for them but their targets.
-- An answer is a lease, 'unknown' or 'over'; or 'elsewhere': another worker has it, or another message is awaited;
-- or 'waits': for its start or its target; or 'unreadable': another version wrote it.
-- A lease is {id, token, 1 if this is its first step; id of the plan in the way or '', state and epoch of the breaker,
-- now_ms; {field, value, ...}; {field, value that this call changed, ...}}.
-- A due plan whose first message is still awaited is deferred by `patience_ms` while the queue holds messages. But if
-- messages that were sent well after its own have arrived, its own is lost. So it is, too, if the queue is empty
-- LATE_MS after the plan could begin. A plan that has expired waits for no message: the queue may never empty.
-- The message of a plan without a `start_time` begins it, even if the clock was set back after its submission.
-- `reaches` is what `reaches_of` in ledger/reach.py returns.
local due_key = KEYS[1]
local prefix, queue, token_prefix = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, recheck_ms, patience_ms, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local reaches = ARGV[8] ~= '' and cjson.decode(ARGV[8])
local FIRST_NAMED = 9
local OVERTAKEN_MS = 10000
local ASIDE_MS = 60000
local HALTED_MS = 10000
local NUMBERS = {'due_ms', 'submitted_ms', 'expires_ms'}
local LATE_MS, LOOK_BACK_MS, MOST_LOOKED_AT = 5000, 20000, 300
local MOST_FORGOTTEN, EXPIRES_LATE_MS = 100, 1000

write_even_if_full(prefix)
local now = server_ms()
local doubts_key = prefix .. 'doubts'
local MOST_IN_DOUBT = 4
local aside_key, reached_key = prefix .. 'aside', prefix .. 'reached'
local some_aside = redis.call('EXISTS', aside_key) == 1
local reached_ms = tonumber(redis.call('GET', reached_key) or 0)
local reached_before_ms = reached_ms
local steps, late_ms, leases_lost, messages_lost = 0, 0, 0, 0
local breakers = {}

local function read(id)
  local fields, plan = redis.pcall('HGETALL', prefix .. 'plan:' .. id), {}
  if fields.err then
    return fields, {state = 'unreadable', problem = 'another kind of key has its name'}
  end
  for index = 1, #fields, 2 do
    plan[fields[index]] = fields[index + 1]
  end
  return fields, plan
end

-- Each Executor's breaker is read once: a closed one costs no call of its own.
local function breaker_of(target)
  local executor = string.match(target, '^[^:]*')
  local known = breakers[executor]
  if not known then
    known = redis.call('HMGET', prefix .. 'breaker:' .. executor, 'state', 'epoch')
    breakers[executor] = known
  end
  return known[1] or '', known[2] or '0'
end

-- Why no worker of this version can carry the plan out. Nothing if one can.
local function problem_of(plan)
  if plan.problem then
    return plan.problem
  elseif plan.v ~= VERSION then
    return 'schema version ' .. (plan.v or 'unknown')
  elseif not (plan.target and plan.lease and plan.due_ms and plan.submitted_ms) then
    return 'fields are missing'
  end
  for _, name in ipairs(NUMBERS) do
    if plan[name] and not string.find(plan[name], '^%d+$') then
      return name .. ' is not a number'
    end
  end
end

local function set_aside(id, problem)
  redis.call('HSET', aside_key, id, problem)
  redis.call('ZADD', due_key, whole(now + ASIDE_MS), id)
  return 'unreadable'
end

-- Mark the plans whose faults are on this plan's target at the same time, and this plan.
local function mark_overlaps(id, plan, changed)
  local beside_key = prefix .. 'beside:' .. plan.target
  local others = redis.call('SMEMBERS', beside_key)
  if plan.conflict_policy == 'allow' then
    table.insert(others, (first_in_line(prefix, plan.target, now)) or nil)
    redis.call('SADD', beside_key, id)
  end
  for _, other in ipairs(others) do
    local other_key = prefix .. 'plan:' .. other
    local known = redis.pcall('HMGET', other_key, 'state', 'started_ms', 'doubt')
    if other ~= id and known[2] and (not FINAL[known[1]] or known[3]) then
      redis.call('HSET', other_key, 'overlapped', 1)
      add(changed, 'overlapped', 1)
    end
  end
end

local function segments_of(api)
  local found = {}
  for segment in string.gmatch(api .. '/', '([^/]*)/') do
    table.insert(found, segment)
  end
  if #found > 2 and found[#found] == '' then
    table.remove(found)
  end
  return found
end

-- Whether a request's path may be one of both. `how`: 'exact', 'template' or 'prefix'.
local function paths_meet(one, how, other, how_other)
  if one == other then
    return true
  end
  local own, others = segments_of(one), segments_of(other)
  local function any(segment, rule)
    return rule ~= 'exact' and string.find(segment, '{[^{}]+}')
  end
  for index = 1, math.max(#own, #others) do
    local here, there = own[index], others[index]
    if not here or not there then
      return (here and how_other or how) == 'prefix'
    elseif here ~= there and not any(here, how) and not any(there, how_other) then
      return (here == '' and how == 'prefix') or (there == '' and how_other == 'prefix')  -- the path is `/`
    end
  end
  return true
end

-- Mark plans of other targets whose faults may hit the same requests at the same time, and this plan. Those that have
-- ended leave the group.
local function mark_neighbours(id, plan, changed)
  local own = reaches and reaches[string.match(plan.target, '^[^:]*')]
  if not own then
    return
  end
  local _, service, api = string.match(plan.target, '^([^:]*):([^:]*):(.*)$')
  local near_key = prefix .. 'near:' .. own.group .. (own.by_service and ':' .. service or '')
  for _, other in ipairs(redis.call('SMEMBERS', near_key)) do
    local other_key = prefix .. 'plan:' .. other
    local known = redis.pcall('HMGET', other_key, 'state', 'started_ms', 'released_ms', 'target')
    local ended = not known[1] or FINAL[known[1]]
    if ended and (tonumber(known[3]) or 0) <= now then
      redis.call('SREM', near_key, other)
    elseif other ~= id and known[2] and known[4] then
      local its_executor, its_service, its_api = string.match(known[4], '^([^:]*):([^:]*):(.*)$')
      local of_any_service = own.others[its_executor]
      if (of_any_service or of_any_service == false and service == its_service)
        and paths_meet(api, own.paths, its_api, reaches[its_executor].paths) then
        add(changed, 'overlapped', 1)
        if not ended then
          redis.call('HSET', other_key, 'overlapped', 1)
        end
      end
    end
  end
  redis.call('SADD', near_key, id)
end

-- For how long the plan waits for a target in doubt: no longer than its own timeout.
local function stuck_until_ms(plan_key, plan)
  if not plan.stuck_ms then
    plan.stuck_ms = whole(now)
    redis.call('HSET', plan_key, 'stuck_ms', plan.stuck_ms)
  end
  return tonumber(plan.stuck_ms) + tonumber(cjson.decode(plan.order).timeout_ms)
end

-- Until when the plan waits for its target, which `first` holds until `until_ms`, and why. Nothing if it must not wait.
local function waits_until(plan_key, plan, first, until_ms, expires_ms)
  if plan.conflict_policy == 'reject' then
    return
  elseif until_ms ~= NEVER_MS then
    if plan.stuck_ms then
      redis.call('HDEL', plan_key, 'stuck_ms')
    end
    local cause = 'waits for its target, which plan ' .. first .. ' holds'
    return math.min(until_ms or now + recheck_ms, expires_ms), cause
  end
  local stuck_ms = stuck_until_ms(plan_key, plan)
  local cause = 'its target is in doubt: dispatcher release frees it'
  if now >= stuck_ms then
    return nil, cause
  end
  return math.min(stuck_ms, now + recheck_ms, expires_ms), cause
end

-- While the dispatcher is halted, nothing begins: what is not cancelled yet would take the targets that become free.
local halted
local function is_halted()
  if halted == nil then
    halted = redis.call('EXISTS', prefix .. 'halt') == 1
  end
  return halted
end

-- The plan's lease, and its target with the first step unless that step is to end the plan; or 'waits'.
local function lease(id, fields, plan)
  local plan_key, in_the_way, changed = prefix .. 'plan:' .. id, '', {}
  local expires_ms = tonumber(plan.expires_ms or math.huge)
  if not plan.started_ms and not plan.cancelled and now < expires_ms and is_halted() then
    redis.call('HSET', plan_key, 'lease', 'parked')
    set_due(plan_key, due_key, id, math.min(now + HALTED_MS, expires_ms))
    return 'waits'
  end
  if not plan.started_ms and not plan.cancelled and now < expires_ms and plan.conflict_policy ~= 'allow' then
    local first, until_ms = first_in_line(prefix, plan.target, now, id)
    if first and first ~= id then
      local due_ms, cause = waits_until(plan_key, plan, first, until_ms, expires_ms)
      if due_ms then
        redis.call('HSET', plan_key, 'cause', cause, 'lease', 'parked')
        set_due(plan_key, due_key, id, due_ms)
        return 'waits'
      end
      in_the_way = first
      add(changed, 'cause', cause)
    else
      redis.call('ZADD', prefix .. 'line:' .. plan.target, 0, id)
      if plan.cause then
        table.insert(changed, 'cause')
        table.insert(changed, '')
      end
    end
  end
  -- A step that never came back may have applied the fault.
  if string.sub(plan.lease, 1, 5) == 'held ' then
    leases_lost = leases_lost + 1
    local may_have_applied = plan.started_ms and not plan.apply_id
    add(changed, 'doubtful_ms', may_have_applied and whole(now))
    add(changed, 'not_after_ms', may_have_applied and plan.not_after_ms and '0')  -- its own is unknown
  end
  -- A plan with another in its way does not start: should this step be lost, the next one looks at the line again.
  local first_step = in_the_way == '' and not plan.started_ms
  add(changed, 'started_ms', first_step and whole(now))
  if first_step and not plan.cancelled and now < expires_ms then
    mark_overlaps(id, plan, changed)
    mark_neighbours(id, plan, changed)
  end
  steps = steps + 1
  late_ms = late_ms + math.max(0, now - plan.due_ms)
  local token = token_prefix .. '.' .. steps
  redis.call('HSET', plan_key, 'lease', 'held ' .. token, unpack(changed))
  redis.call('ZADD', due_key, whole(now + lease_ms), id)
  if some_aside then
    redis.call('HDEL', aside_key, id)
  end
  local state, epoch = breaker_of(plan.target)
  return {id, token, first_step and 1 or 0, in_the_way, state, epoch, now, fields, changed}
end

-- The lease; or 'unreadable', if a key of its target is another program's, say: that must spoil no other plan.
local function lease_or_aside(id, fields, plan)
  local done, found = pcall(lease, id, fields, plan)
  if done then
    return found
  end
  return set_aside(id, type(found) == 'table' and found.err or tostring(found))
end

local function answer(id, retries)
  local fields, plan = read(id)
  if not plan.state then
    return 'unknown'
  end
  if retries == '0' then
    reached_ms = math.max(reached_ms, tonumber(plan.submitted_ms) or 0)
  end
  if FINAL[plan.state] then
    return 'over'
  end
  local problem = problem_of(plan)
  if problem then
    return set_aside(id, problem)
  elseif string.match(plan.lease, '^message (%d+)') ~= retries then
    return 'elsewhere'
  elseif retries == '0' and now < tonumber(plan.due_ms) and plan.due_ms ~= plan.submitted_ms then
    redis.call('HSET', prefix .. 'plan:' .. id, 'lease', 'parked')
    return 'waits'
  end
  return lease_or_aside(id, fields, plan)
end

local named, due = {}, {}
for index = FIRST_NAMED, #ARGV, 2 do
  table.insert(named, answer(ARGV[index], ARGV[index + 1]))
end
if reached_ms > reached_before_ms then
  redis.call('SET', reached_key, whole(reached_ms))
end

local function has_expired(plan)
  return tonumber(plan.expires_ms or math.huge) <= now
end

local backlog
local function message_may_come(plan)
  if has_expired(plan) then
    return false
  elseif plan.lease ~= 'message 0' or tonumber(plan.submitted_ms) + OVERTAKEN_MS < reached_ms then
    return false
  end
  if backlog == nil then
    local length = queue ~= '' and redis.pcall('LLEN', queue)
    backlog = type(length) == 'number' and length > 0
  end
  return backlog
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key, '-inf', whole(now), 'LIMIT', 0, limit)) do
  local fields, plan = read(id)
  local problem = problem_of(plan)
  if not plan.state or FINAL[plan.state] then
    redis.call('ZREM', due_key, id)
    if not plan.state then
      redis.call('ZREM', prefix .. 'history', id)
    end
    if some_aside then
      redis.call('HDEL', aside_key, id)
    end
  elseif problem then
    set_aside(id, problem)
  elseif message_may_come(plan) then
    redis.call('ZADD', due_key, whole(now + patience_ms), id)
  else
    local awaited = string.sub(plan.lease, 1, 8) == 'message ' and tonumber(plan.due_ms) < now
    awaited = awaited and not has_expired(plan)
    local found = lease_or_aside(id, fields, plan)
    if type(found) == 'table' then
      messages_lost = messages_lost + (awaited and 1 or 0)
      table.insert(due, found)
    end
  end
end

-- Add the lease of a plan that ended in doubt to the due ones.
local function lease_in_doubt(id)
  local fields, plan = read(id)
  if not plan.doubt then
    redis.call('ZREM', doubts_key, id)
    return
  elseif problem_of(plan) then
    redis.call('ZADD', doubts_key, whole(now + ASIDE_MS), id)
    return
  end
  steps = steps + 1
  local token = token_prefix .. '.' .. steps
  redis.call('HSET', prefix .. 'plan:' .. id, 'lease', 'held ' .. token)
  redis.call('ZADD', doubts_key, whole(now + lease_ms), id)
  if some_aside then
    redis.call('HDEL', aside_key, id)
  end
  local state, epoch = breaker_of(plan.target)
  table.insert(due, {id, token, 0, '', state, epoch, now, fields, {}})
end

if tonumber(limit) > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', doubts_key, '-inf', whole(now), 'LIMIT', 0, MOST_IN_DOUBT)) do
    lease_in_doubt(id)
  end
end

-- A worker may have been killed between a message's arrival and its plan's lease. That is looked for if leases were
-- lost, and if there is nothing else to do: a plan that is older than its message's usual way is due at once.
if queue ~= '' and (leases_lost > 0 or (#named == 0 and #due == 0)) then
  local last = now + patience_ms - LATE_MS
  local range = {whole(last - LOOK_BACK_MS), whole(last), 'LIMIT', 0, MOST_LOOKED_AT}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key, unpack(range))) do
    local known = redis.pcall('HMGET', prefix .. 'plan:' .. id, 'lease', 'submitted_ms', 'due_ms', 'expires_ms')
    local plan = {v = VERSION, target = '', lease = known[1], submitted_ms = known[2], due_ms = known[3]}
    plan.expires_ms = known[4] or nil
    local started = not problem_of(plan) and tonumber(plan.due_ms) + LATE_MS <= now
    if started and plan.lease == 'message 0' and not message_may_come(plan) then
      redis.call('ZADD', due_key, whole(now), id)
    end
  end
end

-- Remove the plan of an ending from the history, and its batch if that has no other plan left. A plan in doubt, whose
-- record is kept, stays for now.
local function forget(ending)
  local expired_ms, id, batches = string.match(ending, '^(%d+) (%S+)(.*)$')
  if not id then
    return
  elseif redis.call('EXISTS', prefix .. 'plan:' .. id) == 1 then
    local kept_ms = tonumber(redis.call('PTTL', prefix .. 'plan:' .. id))
    local again_ms = kept_ms > 0 and now + kept_ms or now + ASIDE_MS
    redis.call('RPUSH', prefix .. 'endings', whole(again_ms) .. ' ' .. id .. batches)
    return
  end
  redis.call('ZREM', prefix .. 'history', id)
  for batch in string.gmatch(batches, '%S+') do
    local batch_key, gone_key = prefix .. 'batch:' .. batch, prefix .. 'gone'
    if redis.call('HINCRBY', gone_key, batch, 1) >= redis.call('LLEN', batch_key) then
      redis.call('DEL', batch_key)
      redis.call('HDEL', gone_key, batch)
    end
  end
end

for _ = 1, MOST_FORGOTTEN do
  local ending = redis.call('LINDEX', prefix .. 'endings', 0)
  if not ending or (tonumber(string.match(ending, '^%d+')) or 0) + EXPIRES_LATE_MS > now then
    break
  end
  redis.call('LPOP', prefix .. 'endings')
  forget(ending)
end

for name, count in pairs({steps = steps, late_ms = late_ms, leases_lost = leases_lost, messages_lost = messages_lost}) do
  if count > 0 then
    redis.call('HINCRBY', prefix .. 'counts', name, whole(count))
  end
end
local next_due = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')[2]
local next_doubt = redis.call('ZRANGE', doubts_key, 0, 0, 'WITHSCORES')[2]
if next_doubt and (not next_due or tonumber(next_doubt) < tonumber(next_due)) then
  next_due = next_doubt
end
local in_flight = redis.call('ZCARD', due_key)
return {next_due and math.max(0, math.ceil(next_due - now)) or -1, in_flight, named, due}
