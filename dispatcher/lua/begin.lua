-- begin(KEYS: plan, due; ARGV: key prefix, id, token, lease_ms, recheck_ms)
--   -> {now_ms, id of the plan in the way or '', state and epoch of the breaker, field, value, ...}, or nothing where
-- the plan is not to be acted on now: it has ended, waits, waits for its target, or another step holds it. The same
-- token gets the same lease again, so that a call whose answer was lost can be repeated.
local plan_key, due_key = KEYS[1], KEYS[2]
local prefix, id, token, lease_ms, recheck_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local counts_key = prefix .. 'counts'

local known = redis.call('HMGET', plan_key, 'state', 'due_ms', 'token', 'started_ms', 'conflict_policy',
  'cancelled', 'expires_ms', 'leased', 'apply_id', 'target')
local state, due_ms, holder, started_ms, policy, cancelled, expires_ms, leased, apply_id, target =
  unpack(known)
if not state or FINAL[state] then
  redis.call('ZREM', due_key, id)
  redis.call('HINCRBY', counts_key, 'wake_ups_wasted', 1)
  return false
end

local now = server_ms()
if holder ~= token and now < tonumber(due_ms) then
  redis.call('HINCRBY', counts_key, 'wake_ups_wasted', 1)
  return false
end

-- A plan takes its target with its first step, unless that step is to end it.
local in_the_way, gone = '', {'wakes'}
expires_ms = tonumber(expires_ms or math.huge)
if not started_ms and not cancelled and now < expires_ms and policy ~= 'allow' then
  local first, until_ms = first_in_line(prefix, target, now)
  if first and first ~= id then
    if policy == 'reject' then
      in_the_way = first
    else
      redis.call('HSET', plan_key, 'cause', 'waits for its target, which plan ' .. first .. ' holds')
      redis.call('HDEL', plan_key, 'wakes')
      set_due(plan_key, due_key, id, math.min(until_ms or now + recheck_ms, expires_ms))
      return false
    end
  else
    redis.call('ZADD', prefix .. 'line:' .. target, 0, id)
    table.insert(gone, 'cause')
  end
end

if holder ~= token then
  redis.call('HINCRBY', counts_key, 'steps', 1)
  redis.call('HINCRBY', counts_key, 'late_ms', whole(now - due_ms))
end
-- A started step that never came back may have applied the fault. A plan with another in its way does not start:
-- should this step be lost, the next one must look at the line again.
if leased == '1' and holder ~= token then
  redis.call('HINCRBY', counts_key, 'leases_lost', 1)
  if started_ms and not apply_id then
    redis.call('HSET', plan_key, 'doubtful_ms', whole(now))
  end
end
if in_the_way == '' and not started_ms then
  redis.call('HSET', plan_key, 'started_ms', whole(now))
end
redis.call('HDEL', plan_key, unpack(gone))
redis.call('HSET', plan_key, 'token', token, 'leased', 1, 'due_ms', whole(now + lease_ms))
redis.call('ZADD', due_key, whole(now + lease_ms), id)

-- The Executor's breaker goes along unread: a closed one shall not cost a call of its own.
local breaker_key = prefix .. 'breaker:' .. string.match(target, '^[^:]*')
local breaker = redis.call('HMGET', breaker_key, 'state', 'epoch')
local answer = {whole(now), in_the_way, breaker[1] or '', breaker[2] or '0'}
for _, each in ipairs(redis.call('HGETALL', plan_key)) do
  table.insert(answer, each)
end
return answer
