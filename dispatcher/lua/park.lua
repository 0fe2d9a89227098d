-- park(KEYS: plan, due; ARGV: id, token, after_ms, patience_ms, field, value, field, value, ...)
--   -> how many ms from now the plan is due, or nothing for a stale token
-- The plan is due `after_ms` from now, or at once if it was cancelled during the step. The waker looks at it
-- `patience_ms` later than that, where another message will wake it. A field whose value is empty is removed.
local plan_key, due_key = KEYS[1], KEYS[2]
local id, token, after_ms, patience_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local known = redis.call('HMGET', plan_key, 'token', 'cancelled')
if known[1] ~= token then
  return false
end
local ending, present, absent = false, {}, {'leased'}
for index = 5, #ARGV, 2 do
  local name, value = ARGV[index], ARGV[index + 1]
  add(present, name, value)
  if value == '' then
    table.insert(absent, name)
  end
  ending = ending or (name == 'error' and value ~= '')
end

if known[2] and not ending then
  after_ms, patience_ms = 0, 0
end
local now = server_ms()
redis.call('HDEL', plan_key, unpack(absent))
redis.call('HSET', plan_key, 'due_ms', whole(now + after_ms), unpack(present))
redis.call('ZADD', due_key, whole(now + after_ms + patience_ms), id)
return after_ms
