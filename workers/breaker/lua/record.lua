-- record(KEYS: breaker, probes, events, metrics; ARGV: executor, failure_threshold, failure_rate, slow_rate, min_calls,
--        window_ms, success_threshold, open_ms, max_open_ms, jitter, ratio, how many reports,
--        {id, epoch, outcome, slow, times, retry_after_ms, draw, reason} for each report,
--        field, increment, field, increment, ...)
--   -> {state, epoch, {state, reason, state, reason, ...}}: how the breaker is now, and the changes by this call
-- outcome is 'success', 'failure' or 'none'; `slow` (1) is for a success that took too long; `times` is for successes
-- that are alike. An outcome of an earlier epoch, or of a probe whose lease has ended, changes nothing. The increments
-- are added to the metrics in any case.
local breaker_key, probes_key, metrics_key = KEYS[1], KEYS[2], KEYS[4]
local executor, failure_threshold, failure_rate, slow_rate, min_calls = unpack(ARGV, 1, 5)
local window_ms, success_threshold, open_ms, max_open_ms, jitter, ratio = unpack(ARGV, 6, 11)
local REPORT, FIRST_REPORT = 8, 13

local now = server_ms()
local slice = math.floor(now / (window_ms / WINDOW_SLICES))
local field = WINDOW[slice % WINDOW_SLICES + 1]
local changes = {}

-- Open for longer each time in a row, and as long as the Executor asks for, but never beyond the cap.
local function open(why, retry_after_ms, draw)
  local opened = redis.call('HINCRBY', breaker_key, 'opened', 1)
  local lasts_ms = math.min(open_ms * 2 ^ math.min(opened - 1, 30), max_open_ms)
  lasts_ms = math.max(lasts_ms * (1 + jitter * draw), tonumber(retry_after_ms))
  enter('open', executor, why, now)
  redis.call('HSET', breaker_key, 'until_ms', whole(now + math.min(lasts_ms, max_open_ms)))
  table.insert(changes, 'open')
  table.insert(changes, why)
end

local function close(why)
  redis.call('HDEL', breaker_key, 'opened')
  enter('closed', executor, why, now)
  table.insert(changes, 'closed')
  table.insert(changes, why)
end

-- A call that succeeds pays for a share of a retry.
local function pay_in(spent, times)
  local left = spent - ratio * times
  if left > 0 then
    redis.call('HSET', breaker_key, 'spent', left)
  else
    redis.call('HDEL', breaker_key, 'spent', 'spent_ms')
  end
end

local function read_slice(packed)
  local counted, calls, failures, slows = string.match(packed or '', '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(counted), calls, failures, slows
end

local function over_the_rate()
  local total, failed, slowed = 0, 0, 0
  for _, each in ipairs(redis.call('HMGET', breaker_key, unpack(WINDOW))) do
    local counted, calls, failures, slows = read_slice(each)
    if counted and slice - counted < WINDOW_SLICES then
      total, failed, slowed = total + calls, failed + failures, slowed + slows
    end
  end
  if total < tonumber(min_calls) then
    return nil
  elseif failed / total >= tonumber(failure_rate) then
    return failed .. ' of ' .. total .. ' calls failed'
  elseif slowed / total >= tonumber(slow_rate) then
    return slowed .. ' of ' .. total .. ' calls were slow'
  end
end

local function half_open(id, outcome, slow, retry_after_ms, draw, why)
  if redis.call('ZREM', probes_key, id) == 0 or outcome == 'none' then
    return
  elseif outcome == 'failure' or slow == '1' then
    open('a probe failed: ' .. why, retry_after_ms, draw)
  elseif redis.call('HINCRBY', breaker_key, 'successes', 1) >= tonumber(success_threshold) then
    close('the probes succeeded')
  end
end

local function closed(outcome, slow, times, retry_after_ms, draw, why, failed_before, packed)
  local counted, calls, failures, slows = read_slice(packed)
  if counted ~= slice then
    calls, failures, slows = 0, 0, 0
  end
  redis.call('HSET', breaker_key, field, string.format('%.0f %d %d %d', slice, calls + times,
    failures + (outcome == 'failure' and times or 0), slows + slow * times))
  if outcome == 'success' then
    if failed_before then
      redis.call('HDEL', breaker_key, 'failures')
    end
    if slow == '0' then
      return
    end
  else
    local in_a_row = redis.call('HINCRBY', breaker_key, 'failures', 1)
    if in_a_row >= tonumber(failure_threshold) then
      return open(in_a_row .. ' calls in a row failed: ' .. why, retry_after_ms, draw)
    end
  end
  local rate = over_the_rate()
  if rate then
    open(outcome == 'failure' and rate .. ': ' .. why or rate, retry_after_ms, draw)
  end
end

local function record(id, admitted_epoch, outcome, slow, times, retry_after_ms, draw, why)
  local known = redis.call('HMGET', breaker_key, 'state', 'epoch', 'spent', 'failures', field)
  local state, epoch = known[1] or 'closed', known[2] or '0'
  if outcome == 'success' and known[3] then
    pay_in(known[3], times)
  end
  if epoch ~= admitted_epoch then
    return
  elseif state == 'half_open' then
    half_open(id, outcome, slow, retry_after_ms, draw, why)
  elseif state == 'closed' and outcome ~= 'none' then
    closed(outcome, slow, times, retry_after_ms, draw, why, known[4], known[5])
  end
end

local reports = tonumber(ARGV[12])
for number = 0, reports - 1 do
  local first = FIRST_REPORT + number * REPORT
  record(unpack(ARGV, first, first + REPORT - 1))
end
for index = FIRST_REPORT + reports * REPORT, #ARGV, 2 do
  redis.call('HINCRBY', metrics_key, ARGV[index], ARGV[index + 1])
end
local known = redis.call('HMGET', breaker_key, 'state', 'epoch')
return {known[1] or '', known[2] or '0', changes}
