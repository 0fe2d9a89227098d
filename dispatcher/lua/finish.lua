-- finish(KEYS: plan, due, ended, result; ARGV: id, token, state, apply_id, cause, result, keep_s)
--   -> 1 ended, 0 stale token
-- The result and the end are one: nobody sees the one without the other, and a stale step leaves neither.
-- `result` is the key and the channel that Celery's Redis result backend reads.
local plan_key, due_key, ended_key, result_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, token, state, apply_id, cause, result, keep_s =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local known = redis.call('HMGET', plan_key, 'token', 'state')
if known[1] ~= token then
  return 0
end
if FINAL[known[2]] then
  return 1  -- the same step again, whose answer was lost
end
redis.call('SET', result_key, result, 'EX', keep_s)
redis.call('PUBLISH', result_key, result)
redis.call('HSET', plan_key, 'state', state, 'cause', cause, 'ended_ms', whole(server_ms()))
if apply_id ~= '' then
  redis.call('HSET', plan_key, 'apply_id', apply_id)
end
redis.call('EXPIRE', plan_key, keep_s)
redis.call('ZREM', due_key, id)
redis.call('RPUSH', ended_key, id)
redis.call('EXPIRE', ended_key, keep_s)
return 1
