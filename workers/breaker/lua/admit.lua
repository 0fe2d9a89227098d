-- admit(KEYS: breaker, probes, events; ARGV: executor, id, enabled, lease_ms, half_open_probes, retry,
--       reserve, per_ms, place, slot_ms)
--   -> {'granted', epoch, state} or {'open', 'by hand' or 'spent', ms until another try is worth it, reason}
-- Asks for one call. While half open it is a probe, on a lease of its own, which the same id gets again. A `retry` (1)
-- through a closed breaker takes one of the budget's `reserve`, into which `per_ms` flow back by themselves. A caller
-- that will wait and come back asks for a `place` (1): places are `slot_ms` apart, so that the plans that wait
-- for the breaker do not all come at once. state 'half_open!' means that this call made it half open.
local breaker_key, probes_key = KEYS[1], KEYS[2]
local executor, id, enabled, lease_ms, half_open_probes, retry, reserve, per_ms, place, slot_ms = unpack(ARGV)
local HALF_OPEN_WAIT_MS = 1000

local known = redis.call('HMGET', breaker_key, 'state', 'epoch', 'until_ms', 'slot_ms', 'reason', 'spent', 'spent_ms')
local state, epoch, until_ms, last_slot_ms, reason, spent, spent_ms = unpack(known)
local now = server_ms()
if enabled == '0' then
  state = 'disabled'
end

local function rejected(after_ms, why)
  local earliest = now + after_ms
  if place == '1' then
    earliest = math.max(earliest, tonumber(last_slot_ms or 0) + slot_ms)
    redis.call('HSET', breaker_key, 'slot_ms', whole(earliest))
  end
  return {why or 'open', whole(earliest - now), reason or ''}
end

if not state or state == 'disabled' then
  if retry == '1' then
    spent = math.max(0, tonumber(spent or 0) - math.max(0, now - tonumber(spent_ms or now)) * per_ms)
    if spent + 1 > tonumber(reserve) then
      local missing = spent + 1 - reserve
      return {'spent', whole(tonumber(per_ms) > 0 and math.ceil(missing / per_ms) or -1), ''}
    end
    redis.call('HSET', breaker_key, 'spent', spent + 1, 'spent_ms', whole(now))
  end
  return {'granted', epoch or '0', state or 'closed'}
end

local entered = ''
if state == 'open' then
  if not until_ms then
    return rejected(HALF_OPEN_WAIT_MS, 'by hand')
  elseif now < tonumber(until_ms) then
    return rejected(until_ms - now)
  end
  epoch = enter('half_open', executor, 'probing', now)
  entered = '!'
end
redis.call('ZREMRANGEBYSCORE', probes_key, '-inf', whole(now))
if not redis.call('ZSCORE', probes_key, id) then
  if redis.call('ZCARD', probes_key) >= tonumber(half_open_probes) then
    return rejected(HALF_OPEN_WAIT_MS)
  end
  redis.call('ZADD', probes_key, whole(now + lease_ms), id)
end
return {'granted', epoch, 'half_open' .. entered}
