-- park(KEYS: plan, due; ARGV: id, token, after_ms, patience_ms, state, apply_id, attempts, cause, error,
--      doubtful)
--   -> how many ms from now the plan is due, or nothing for a stale token
-- The plan is due `after_ms` from now, or at once if it was cancelled during the step. The waker looks at it
-- `patience_ms` later than that, where another message will wake it.
local plan_key, due_key = KEYS[1], KEYS[2]
local id, token, after_ms, patience_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state, apply_id, attempts, cause, error, doubtful = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local known = redis.call('HMGET', plan_key, 'token', 'cancelled', 'error')
if known[1] ~= token then
  return false
end
if known[2] and error == '' then
  after_ms, patience_ms = 0, 0
end
local now = server_ms()
redis.call('HSET', plan_key, 'state', state, 'due_ms', whole(now + after_ms))
redis.call('HDEL', plan_key, 'leased')
set_unless(plan_key, 'attempts', attempts, '0')
set_unless(plan_key, 'cause', cause, '')
set_unless(plan_key, 'doubtful', doubtful, '0')
set_unless(plan_key, 'error', error, '')
if apply_id ~= '' then
  redis.call('HSET', plan_key, 'apply_id', apply_id)
  redis.call('HSETNX', plan_key, 'applied_ms', whole(now))
end
redis.call('ZADD', due_key, whole(now + after_ms + patience_ms), id)
return after_ms
