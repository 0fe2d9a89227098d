-- cancel(KEYS: due; ARGV: plan key prefix, reason, id, ...) -> for each id: its order if it was cancelled, 0 if it has
-- ended already, -1 if it is unknown
-- The mark stays whatever happens. A plan that waits is due at once; one in the middle of a step is when the step
-- ends.
local due_key = KEYS[1]
local prefix, reason = ARGV[1], ARGV[2]

write_even_if_full(prefix)
local now = server_ms()
local answers = {}
for index = 3, #ARGV do
  local id = ARGV[index]
  local plan_key = prefix .. id
  local known = redis.call('HMGET', plan_key, 'state', 'order', 'leased', 'cancelled')
  local state, order, leased, cancelled = known[1], known[2], known[3], known[4]
  if not state then
    table.insert(answers, -1)
  elseif FINAL[state] then
    table.insert(answers, 0)
  else
    if not cancelled then
      redis.call('HSET', plan_key, 'cancelled', reason)
      if leased ~= '1' then
        redis.call('HDEL', plan_key, 'wakes')
        set_due(plan_key, due_key, id, now)
      end
    end
    table.insert(answers, order)
  end
end
return answers
