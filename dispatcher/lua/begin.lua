-- begin(KEYS: plan, due; ARGV: id, token, lease_ms) -> {now_ms, field, value, ...}, or nothing where the plan
-- is not to be acted on now: it has ended, waits, or another step holds it. The same token gets the same lease
-- again, so that a call whose answer was lost can be repeated.
local plan_key, due_key = KEYS[1], KEYS[2]
local id, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local known = redis.call('HMGET', plan_key, 'state', 'due_ms', 'token')
local state, due_ms, holder = known[1], known[2], known[3]
if not state or FINAL[state] then
  redis.call('ZREM', due_key, id)
  return false
end

local now = server_ms()
if holder ~= token and now < tonumber(due_ms) then
  return false
end
local until_ms = whole(now + lease_ms)
redis.call('HSETNX', plan_key, 'started_ms', whole(now))
redis.call('HSET', plan_key, 'token', token, 'due_ms', until_ms, 'wakes', 0)
redis.call('ZADD', due_key, until_ms, id)

local record = redis.call('HGETALL', plan_key)
table.insert(record, 1, whole(now))
return record
