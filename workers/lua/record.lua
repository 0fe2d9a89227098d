-- record(KEYS: breaker, probes, events, metrics; ARGV: executor, id, epoch, outcome, slow, retry_after_ms, draw,
--        reason, failure_threshold, failure_rate, slow_rate, min_calls, window_ms, success_threshold, open_ms,
--        max_open_ms, jitter, ratio, field, increment, field, increment, ...)
--   -> the state that this call brought about, with its reason: {'open', reason}, {'closed', reason}, else nothing
-- outcome is 'success', 'failure' or 'none'; `slow` (1) is for a success that took too long. An outcome of an earlier
-- epoch, or of a probe whose lease has ended, changes nothing. The increments are added to the metrics in any case.
local breaker_key, probes_key, metrics_key = KEYS[1], KEYS[2], KEYS[4]
local executor, id, admitted_epoch, outcome, slow, retry_after_ms, draw, why = unpack(ARGV, 1, 8)
local failure_threshold, failure_rate, slow_rate, min_calls = unpack(ARGV, 9, 12)
local window_ms, success_threshold, open_ms, max_open_ms, jitter, ratio = unpack(ARGV, 13, 18)

for index = 19, #ARGV, 2 do
  redis.call('HINCRBY', metrics_key, ARGV[index], ARGV[index + 1])
end

local now = server_ms()
local slice = math.floor(now / (window_ms / WINDOW_SLICES))
local field = WINDOW[slice % WINDOW_SLICES + 1]
local known = redis.call('HMGET', breaker_key, 'state', 'epoch', 'spent', 'failures', field)
local state, epoch, spent, failed_before, packed = known[1] or 'closed', known[2] or '0', known[3], known[4], known[5]

-- A call that succeeds pays for a share of a retry.
if outcome == 'success' and spent then
  local left = spent - ratio
  if left > 0 then
    redis.call('HSET', breaker_key, 'spent', left)
  else
    redis.call('HDEL', breaker_key, 'spent', 'spent_ms')
  end
end
if epoch ~= admitted_epoch or state == 'disabled' then
  return false
end

-- Open for longer each time in a row, and as long as the Executor asks to be left alone, but never beyond the cap.
local function open(reason)
  local opened = redis.call('HINCRBY', breaker_key, 'opened', 1)
  local lasts_ms = math.min(open_ms * 2 ^ math.min(opened - 1, 30), max_open_ms)
  lasts_ms = math.max(lasts_ms * (1 + jitter * draw), tonumber(retry_after_ms))
  enter('open', executor, reason, now)
  redis.call('HSET', breaker_key, 'until_ms', whole(now + math.min(lasts_ms, max_open_ms)))
  return {'open', reason}
end

local function close(reason)
  redis.call('HDEL', breaker_key, 'opened')
  enter('closed', executor, reason, now)
  return {'closed', reason}
end

if state == 'half_open' then
  if redis.call('ZREM', probes_key, id) == 0 or outcome == 'none' then
    return false
  elseif outcome == 'failure' or slow == '1' then
    return open('a probe failed: ' .. why)
  elseif redis.call('HINCRBY', breaker_key, 'successes', 1) >= tonumber(success_threshold) then
    return close('the probes succeeded')
  end
  return false
elseif state ~= 'closed' or outcome == 'none' then
  return false
end

-- Closed: count the call in its slice of the window.
local counted, calls, failures, slows = string.match(packed or '', '^(%d+) (%d+) (%d+) (%d+)$')
if tonumber(counted) ~= slice then
  calls, failures, slows = 0, 0, 0
end
redis.call('HSET', breaker_key, field, string.format('%.0f %d %d %d', slice, calls + 1,
  failures + (outcome == 'failure' and 1 or 0), slows + slow))

if outcome == 'success' then
  if failed_before then
    redis.call('HDEL', breaker_key, 'failures')
  end
  if slow == '0' then
    return false
  end
else
  local in_a_row = redis.call('HINCRBY', breaker_key, 'failures', 1)
  if in_a_row >= tonumber(failure_threshold) then
    return open(in_a_row .. ' calls in a row failed: ' .. why)
  end
end

local total, failed, slowed = 0, 0, 0
for _, each in ipairs(redis.call('HMGET', breaker_key, unpack(WINDOW))) do
  counted, calls, failures, slows = string.match(each or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if counted and slice - counted < WINDOW_SLICES then
    total, failed, slowed = total + calls, failed + failures, slowed + slows
  end
end
if total >= tonumber(min_calls) then
  if failed / total >= tonumber(failure_rate) then
    return open(failed .. ' of ' .. total .. ' calls failed: ' .. why)
  elseif slowed / total >= tonumber(slow_rate) then
    return open(slowed .. ' of ' .. total .. ' calls were slow')
  end
end
return false
