-- finish(KEYS: plan, due, ended, result; ARGV: key prefix, id, token, state, apply_id, cause, result, keep_s,
--        alive_ms)
--   -> 0 ms from now the next plan in line may be due; nothing for a stale token
-- The result and the end are one: nobody sees the one without the other, and a stale step leaves neither.
-- `result` is the key and the channel that Celery's Redis result backend reads. `alive_ms` is how much longer the
-- fault may be alive: so long the plan keeps its target.
local plan_key, due_key, ended_key, result_key = unpack(KEYS)
local prefix, id, token, state, apply_id, cause, result, keep_s, alive_ms = unpack(ARGV)

local known = redis.call('HMGET', plan_key, 'token', 'state', 'batch', 'target')
if known[1] ~= token then
  return false
end
if FINAL[known[2]] then
  return 0  -- the same step again, whose answer was lost
end
local now = server_ms()
redis.call('SET', result_key, result, 'EX', keep_s)
redis.call('PUBLISH', result_key, result)
redis.call('HDEL', plan_key, 'leased', 'cause')
local fields = {'state', state, 'ended_ms', whole(now)}
add(fields, 'cause', cause)
add(fields, 'apply_id', apply_id)
redis.call('HSET', plan_key, unpack(fields))
redis.call('HINCRBY', prefix .. 'counts', state, 1)
redis.call('EXPIRE', plan_key, keep_s)
redis.call('ZREM', due_key, id)
redis.call('RPUSH', ended_key, id)
redis.call('EXPIRE', ended_key, keep_s)
if known[3] then
  local completions_key = prefix .. 'completions:' .. known[3]
  redis.call('XADD', completions_key, '*', 'id', id)
  redis.call('EXPIRE', completions_key, keep_s)
end

local line_key = prefix .. 'line:' .. known[4]
-- The next in line need not wait for its own look at the line.
if tonumber(alive_ms) > 0 then
  redis.call('HSET', plan_key, 'released_ms', whole(now + alive_ms))
else
  redis.call('ZREM', line_key, id)
end
local next_id, until_ms = first_in_line(prefix, known[4], now)
if next_id == id then
  next_id = redis.call('ZRANGE', line_key, 1, 1)[1]
end
if next_id and not redis.call('HGET', prefix .. 'plan:' .. next_id, 'started_ms') then
  local next_key = prefix .. 'plan:' .. next_id
  local start_ms = math.floor(redis.call('ZSCORE', line_key, next_id) / 1000)
  set_due(next_key, due_key, next_id, math.max(until_ms or now, start_ms))
end
return 0
