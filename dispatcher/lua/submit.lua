-- submit(KEYS: plan, due; ARGV: id, plan, title, executor, timeout_ms, expires_after_ms or '', start_ms or '',
--        patience_ms) -> 1 new, 0 already there, -1 the id belongs to another plan, -2 start_ms has passed
local plan_key, due_key = KEYS[1], KEYS[2]
local id, plan, title, executor, timeout_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local expires_after_ms, start_ms, patience_ms = ARGV[6], ARGV[7], tonumber(ARGV[8])

local known = redis.call('HMGET', plan_key, 'plan', 'executor', 'timeout_ms')
if known[1] then
  local same = known[1] == plan and known[2] == executor and known[3] == timeout_ms
  return same and 0 or -1
end

local now = server_ms()
local due = tonumber(start_ms) or now
if due < now then
  return -2
end
redis.call('HSET', plan_key, 'plan', plan, 'title', title, 'executor', executor, 'timeout_ms', timeout_ms,
  'submitted_ms', whole(now), 'state', 'queued', 'due_ms', whole(due), 'attempts', 0, 'wakes', 0)
if expires_after_ms ~= '' then
  redis.call('HSET', plan_key, 'expires_ms', whole(due + expires_after_ms))
end
-- A plan that may start at once is woken by its submitter; the waker stands behind that message.
redis.call('ZADD', due_key, whole(start_ms == '' and now + patience_ms or due), id)
return 1
