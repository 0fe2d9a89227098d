-- park(KEYS: plan, due; ARGV: id, token, after_ms, patience_ms, state, apply_id, attempts, cause)
--   -> due_ms - now_ms, or nothing for a stale token
-- The plan is due `after_ms` from now. The waker looks at it `patience_ms` later than that, where another
-- message will wake it.
local plan_key, due_key = KEYS[1], KEYS[2]
local id, token, after_ms, patience_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state, apply_id, attempts, cause = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

if redis.call('HGET', plan_key, 'token') ~= token then
  return false
end
local now = server_ms()
local due = now + after_ms
redis.call('HSET', plan_key, 'state', state, 'attempts', attempts, 'cause', cause, 'due_ms', whole(due))
if apply_id ~= '' then
  redis.call('HSET', plan_key, 'apply_id', apply_id)
  redis.call('HSETNX', plan_key, 'applied_ms', whole(now))
end
redis.call('ZADD', due_key, whole(due + patience_ms), id)
return after_ms
