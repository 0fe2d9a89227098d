-- begin(KEYS: plan, due; ARGV: key prefix, id, token, lease_ms, recheck_ms)
--   -> {now_ms, id of the plan in the way or '', state and epoch of the breaker, {field, value, ...}, {field, value
-- that the step changed, ...}}, or nothing where the plan is not to be acted on now: it has ended, waits, waits for its
-- target, or another step holds it. The same token gets the same lease again, so that a call whose answer was lost can
-- be repeated.
local plan_key, due_key = KEYS[1], KEYS[2]
local prefix, id, token, lease_ms, recheck_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local counts_key = prefix .. 'counts'

local fields, plan = redis.call('HGETALL', plan_key), {}
for index = 1, #fields, 2 do
  plan[fields[index]] = fields[index + 1]
end
if not plan.state or FINAL[plan.state] then
  redis.call('ZREM', due_key, id)
  redis.call('HINCRBY', counts_key, 'wake_ups_wasted', 1)
  return false
end

local now = server_ms()
local again = plan.token == token
if not again and now < tonumber(plan.due_ms) then
  redis.call('HINCRBY', counts_key, 'wake_ups_wasted', 1)
  return false
end

-- A plan takes its target with its first step, unless that step is to end it.
local in_the_way, lease_ends = '', whole(now + lease_ms)
local changed = {'token', token, 'leased', 1, 'due_ms', lease_ends, 'wakes', 0}
local expires_ms = tonumber(plan.expires_ms or math.huge)
if not plan.started_ms and not plan.cancelled and now < expires_ms and plan.conflict_policy ~= 'allow' then
  local first, until_ms = first_in_line(prefix, plan.target, now, id)
  if first and first ~= id then
    if plan.conflict_policy == 'reject' then
      in_the_way = first
    else
      local cause = 'waits for its target, which plan ' .. first .. ' holds'
      redis.call('HSET', plan_key, 'cause', cause, 'wakes', 0)
      set_due(plan_key, due_key, id, math.min(until_ms or now + recheck_ms, expires_ms))
      return false
    end
  else
    redis.call('ZADD', prefix .. 'line:' .. plan.target, 0, id)
    if plan.cause then
      table.insert(changed, 'cause')
      table.insert(changed, '')
    end
  end
end

if not again then
  redis.call('HINCRBY', counts_key, 'steps', 1)
  redis.call('HINCRBY', counts_key, 'late_ms', whole(now - plan.due_ms))
end
-- A started step that never came back may have applied the fault. A plan with another in its way does not start:
-- should this step be lost, the next one must look at the line again.
if plan.leased == '1' and not again then
  redis.call('HINCRBY', counts_key, 'leases_lost', 1)
  add(changed, 'doubtful_ms', plan.started_ms and not plan.apply_id and whole(now))
end
add(changed, 'started_ms', in_the_way == '' and not plan.started_ms and whole(now))
redis.call('HSET', plan_key, unpack(changed))
redis.call('ZADD', due_key, lease_ends, id)

-- The Executor's breaker goes along unread: a closed one shall not cost a call of its own.
local breaker_key = prefix .. 'breaker:' .. string.match(plan.target, '^[^:]*')
local breaker = redis.call('HMGET', breaker_key, 'state', 'epoch')
return {whole(now), in_the_way, breaker[1] or '', breaker[2] or '0', fields, changed}
