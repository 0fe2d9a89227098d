-- settle(KEYS: due; ARGV: key prefix, keep_s, then for each decision: id, token, kind, how many more, ...)
--   -> for each decision: in how many ms the plan is due, -1 if the lease was lost (nothing is written), or -2 if the
--      plan was cancelled meanwhile and is due at once (no retry must be sent)
-- The kinds, and what follows:
--   'snooze'   after_ms, field, value, ...             the plan is due after_ms from now
--   'retry'    after_ms, grace_ms, retries, result key, result, field, value, ...   a message begins the next step
--              after_ms from now; a worker begins it without one grace_ms later. The result says why, until the plan ends
--   'end'      state, apply_id, cause, result key, result, alive_ms   the plan ends; its result is stored
--              and if there is more to keep: doubt, look_again_ms, field, value, ... `doubt` is empty unless its fault
--              may be alive
--   'known'    alive_ms                                the fault of a plan that ended in doubt is over
--   'release'  1 if it was the first step              the step was not begun; the plan is due at once
--   'aside'    why                                     this version cannot read the plan; it is due again in a minute
-- A field whose value is empty is removed. A plan that was cancelled during its step is due at once.
-- `result` and its key are what Celery's result backend expects: result and end are one change, and so are a retry and
-- its cause, which can replace no end. `alive_ms` is how much longer the fault may be alive: the plan keeps its target
-- for that long. With a `doubt` it keeps it until that is known.
local due_key = KEYS[1]
local prefix, keep_s = ARGV[1], ARGV[2]
local ASIDE_MS = 60000
local LONG_NUMBER = string.rep('%x', 24)
write_even_if_full(prefix)
local now = server_ms()
local ended = {}
local doubts_key = prefix .. 'doubts'

-- Where the Executor's ids are known. Nothing if no other fault can have this one: it has a UUID, or as many hexadecimal
-- digits as LONG_NUMBER, or is the plan's own id. But an Executor that counts may reach a plan's number.
local function ids_key_of(id, target, apply_id)
  local without_dashes = string.gsub(apply_id, '%-', '')
  local is_plans = apply_id == id and string.find(id, '%D')
  if is_plans or string.find(without_dashes, LONG_NUMBER) then
    return nil
  end
  return prefix .. 'ids:' .. string.match(target, '^[^:]*')
end

-- The plan's fault has this id from now on. A plan in flight whose fault has it, too, is marked, and so is this one:
-- their Executor repeats ids.
local function note_id(id, plan_key, target, apply_id)
  local ids_key = ids_key_of(id, target, apply_id)
  if not ids_key or redis.call('HSETNX', ids_key, apply_id, id) == 1 then
    return
  end
  local other = redis.call('HGET', ids_key, apply_id)
  local other_key = prefix .. 'plan:' .. other
  local state = redis.pcall('HGET', other_key, 'state')
  if other ~= id and type(state) == 'string' and not FINAL[state] then
    redis.call('HSET', other_key, 'twin', id)
    redis.call('HSET', plan_key, 'twin', other)
  end
  redis.call('HSET', ids_key, apply_id, id)
end

local function forget_id(id, target, apply_id)
  local ids_key = ids_key_of(id, target, apply_id)
  if ids_key and redis.call('HGET', ids_key, apply_id) == id then
    redis.call('HDEL', ids_key, apply_id)
  end
end

-- Set the fields that ARGV holds from `first` to `last`, and remove the empty ones. The id of the fault, if it is new.
local function update(plan_key, first, last, present)
  local absent, apply_id = {}, nil
  for index = first, last, 2 do
    local name, value = ARGV[index], ARGV[index + 1]
    add(present, name, value)
    if name == 'apply_id' and value ~= '' then
      apply_id = value
    end
    if value == '' then
      table.insert(absent, name)
    end
  end
  if #absent > 0 then
    redis.call('HDEL', plan_key, unpack(absent))
  end
  redis.call('HSET', plan_key, unpack(present))
  return apply_id
end

-- Whether a cancelled plan still has to begin to end: then it is due at once.
local function must_end(plan_key, cancelled)
  return cancelled and redis.call('HEXISTS', plan_key, 'error') == 0
end

local function park(id, plan_key, token, after_ms, target, cancelled, first, last, final)
  local due_ms = whole(now + after_ms)
  if final then
    update(plan_key, first, last, {'lease', 'parked ' .. token})
    redis.call('ZADD', doubts_key, due_ms, id)
    return after_ms
  end
  local apply_id = update(plan_key, first, last, {'lease', 'parked ' .. token, 'due_ms', due_ms})
  if apply_id then
    note_id(id, plan_key, target, apply_id)
  end
  if must_end(plan_key, cancelled) then
    set_due(plan_key, due_key, id, now)
    return 0
  end
  redis.call('ZADD', due_key, due_ms, id)
  return after_ms
end

local function await_retry(id, plan_key, token, target, cancelled, first, last)
  local after_ms, grace_ms, retries = tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2]
  local result_key, result = ARGV[first + 3], ARGV[first + 4]
  local lease = 'message ' .. retries .. ' ' .. token
  local apply_id = update(plan_key, first + 5, last, {'lease', lease, 'retries', retries})
  if apply_id then
    note_id(id, plan_key, target, apply_id)
  end
  if must_end(plan_key, cancelled) then
    redis.call('HSET', plan_key, 'lease', 'parked ' .. token)
    set_due(plan_key, due_key, id, now)
    return -2
  end
  redis.call('SET', result_key, result, 'EX', keep_s)
  set_due(plan_key, due_key, id, now + after_ms)
  redis.call('ZADD', due_key, whole(now + after_ms + grace_ms), id)
  return after_ms
end

-- The plan's fault may be alive: workers look at it until that is known, and the record is kept for them. It has the
-- target, even if it did not want it for itself. All plans in line are due at once, because their time to wait begins.
local function keep_in_doubt(id, plan_key, target, doubt, look_again_ms)
  local line_key = prefix .. 'line:' .. target
  redis.call('HSET', plan_key, 'doubt', doubt, 'released_ms', whole(NEVER_MS))
  redis.call('PERSIST', plan_key)
  redis.call('ZADD', doubts_key, whole(now + look_again_ms), id)
  redis.call('ZADD', line_key, 0, id)
  for _, waiting in ipairs(redis.call('ZRANGE', line_key, 0, -1)) do
    wake(prefix, due_key, line_key, waiting, now)
  end
end

local function finish(id, plan_key, token, batches, target, exclusive, old_cause, first, last)
  local state, apply_id, cause, result_key, result, alive_ms, doubt, look_again_ms = unpack(ARGV, first, first + 7)
  local has_more = last >= first + 7
  if has_more then
    update(plan_key, first + 8, last, {'lease', 'parked ' .. token})
  end
  if not has_more or doubt == '' then
    doubt = nil
  end
  redis.call('SET', result_key, result, 'EX', keep_s)
  redis.pcall('PUBLISH', result_key, result)  -- a user without rights to channels keeps no plan from ending
  if old_cause and cause == '' then
    redis.call('HDEL', plan_key, 'cause')
  end
  local fields = {'state', state, 'ended_ms', whole(now), 'lease', 'parked ' .. token}
  add(fields, 'cause', cause)
  add(fields, 'apply_id', apply_id)
  redis.call('HSET', plan_key, unpack(fields))
  if apply_id ~= '' then
    forget_id(id, target, apply_id)
  end
  redis.call('ZREM', due_key, id)
  redis.call('RPUSH', prefix .. 'ended:' .. id, id)
  redis.call('EXPIRE', prefix .. 'ended:' .. id, keep_s)
  for batch in string.gmatch(batches or '', '%S+') do
    complete(prefix, batch, id, keep_s)
  end
  forget_later(prefix, now, id, batches, keep_s)
  ended[state] = (ended[state] or 0) + 1
  if doubt then
    keep_in_doubt(id, plan_key, target, doubt, tonumber(look_again_ms))
    return tonumber(look_again_ms)
  end
  if not exclusive then
    redis.call('SREM', prefix .. 'beside:' .. target, id)
  end
  redis.call('EXPIRE', plan_key, keep_s)
  pass_on(prefix, due_key, now, id, plan_key, target, tonumber(alive_ms))
  return 0
end

local function settle(index, count)
  local id, token, kind, first = ARGV[index], ARGV[index + 1], ARGV[index + 2], index + 4
  local last = index + 3 + count
  local plan_key = prefix .. 'plan:' .. id
  local names = {'lease', 'cancelled', 'batch', 'target', 'state', 'conflict_policy', 'cause'}
  local known = redis.call('HMGET', plan_key, unpack(names))
  local lease, cancelled, final = known[1] or '', known[2], FINAL[known[5] or '']
  if lease ~= 'held ' .. token then
    local by = string.match(lease, '^parked (.*)$') or string.match(lease, '^message %d+ (.*)$')
    return by == token and (kind == 'retry' and tonumber(ARGV[first]) or 0) or -1
  elseif kind == 'snooze' then
    return park(id, plan_key, token, tonumber(ARGV[first]), known[4], cancelled, first + 1, last, final)
  elseif kind == 'retry' then
    return await_retry(id, plan_key, token, known[4], cancelled, first, last)
  elseif kind == 'end' then
    return finish(id, plan_key, token, known[3], known[4], known[6] ~= 'allow', known[7], first, last)
  elseif kind == 'known' then
    settle_doubt(prefix, due_key, now, keep_s, id, plan_key, known[4], tonumber(ARGV[first]))
    return 0
  elseif kind == 'release' then
    if ARGV[first] == '1' then
      redis.call('HDEL', plan_key, 'started_ms')
    end
    return park(id, plan_key, token, 0, known[4], cancelled, 1, 0, final)
  end
  redis.call('HSET', prefix .. 'aside', id, ARGV[first])
  return park(id, plan_key, token, ASIDE_MS, known[4], nil, 1, 0, final)
end

local answers, index = {}, 3
while index <= #ARGV do
  local count = tonumber(ARGV[index + 3])
  table.insert(answers, settle(index, count))
  index = index + 4 + count
end
for state, count in pairs(ended) do
  redis.call('HINCRBY', prefix .. 'counts', state, count)
end
return answers
