-- switch(KEYS: breaker, probes, events; ARGV: executor, state, reason) -> 1 if that changed anything
-- By a person's hand. 'open' lasts until it is closed; 'closed' and 'reset' let calls through again, 'reset' having
-- forgotten how often the breaker opened and which retries were taken; 'disabled' lets all calls through, even if
-- they fail.
local breaker_key = KEYS[1]
local executor, state, reason = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', breaker_key, 'state', 'until_ms')
local now = server_ms()

if state == 'reset' then
  if known[1] then
    enter('closed', executor, reason, now)
  else
    redis.call('HINCRBY', breaker_key, 'epoch', 1)
    redis.call('HDEL', breaker_key, 'failures', unpack(WINDOW))
  end
  redis.call('HDEL', breaker_key, 'opened', 'slot_ms', 'spent', 'spent_ms', 'opens', 'half_opens', 'closes')
  return 1
end
if (known[1] or 'closed') == state and not known[2] then
  return 0
end
redis.call('HDEL', breaker_key, 'opened', 'slot_ms')
enter(state, executor, reason, now)
return 1
