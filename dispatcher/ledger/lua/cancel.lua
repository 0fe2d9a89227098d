-- cancel(KEYS: due; ARGV: key prefix, reason, which, id, ...) -> for each id: 1 if it is cancelled, 0 if it has ended
-- already, -1 if it is unknown, 2 if `which` passed it over
-- which = 'all', or 'begun' for the plans whose faults may run, which go first if many are cancelled.
-- The mark stays until the plan ends. A plan that waits is due at once; one that a worker is carrying out, when its step
-- ends.
local due_key = KEYS[1]
local prefix, reason, which = ARGV[1], ARGV[2], ARGV[3]

write_even_if_full(prefix)
local now = server_ms()
local answers = {}
for index = 4, #ARGV do
  local id = ARGV[index]
  local plan_key = prefix .. 'plan:' .. id
  local known = redis.pcall('HMGET', plan_key, 'state', 'started_ms', 'lease', 'cancelled')
  local state, started_ms, lease, cancelled = known[1], known[2], known[3] or '', known[4]
  if not state then
    table.insert(answers, -1)
  elseif FINAL[state] then
    table.insert(answers, 0)
  elseif which == 'begun' and not started_ms then
    table.insert(answers, 2)
  else
    if not cancelled then
      redis.call('HSET', plan_key, 'cancelled', reason)
      if string.sub(lease, 1, 5) ~= 'held ' then
        redis.call('HSET', plan_key, 'lease', 'parked')
        set_due(plan_key, due_key, id, now)
      end
    end
    table.insert(answers, 1)
  end
end
return answers
