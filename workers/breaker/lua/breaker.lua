-- Comes before every script here.
--
--   breaker  hash    {prefix}:breaker:<executor>          see below
--   probes   zset    {prefix}:breaker:<executor>:probes   admission id -> ms at which its lease ends
--   events   stream  {prefix}:breaker-events              executor, state, epoch, reason of each change of state
--   metrics  hash    {prefix}:metrics:<executor>          what calls have shown, see dispatcher/telemetry/metrics.py
--
-- The breaker's fields, each absent if it is empty or 0:
--   state       'open', 'half_open' or 'disabled'; absent: closed
--   epoch       a number that rises with each change of state. What an earlier epoch admitted has no say in this one
--   reason, since_ms   why it is in this state, and since when
--   failures    how many calls in a row have failed, while closed
--   w0 ... w9   the window, a ring of slices of time: 'slice calls failures slow', while closed
--   until_ms    when an open breaker lets probes through; absent: not before a person closes it
--   opened      how many times in a row it opened without closing in between
--   successes   probes that have succeeded, while half open
--   slot_ms     the last moment that was given to a call that waits
--   spent, spent_ms   retries taken from the budget and not yet paid in again, and when that was calculated
--   opens, half_opens, closes   how often it changed its state
-- All times are the Redis server's, in milliseconds since 1970.

local WINDOW_SLICES = 10
local WINDOW = {'w0', 'w1', 'w2', 'w3', 'w4', 'w5', 'w6', 'w7', 'w8', 'w9'}
local COUNTERS = {open = 'opens', half_open = 'half_opens', closed = 'closes'}
local MAX_EVENTS = 1000

local function server_ms()
  local time = redis.call('TIME')
  return math.floor(time[1] * 1000 + time[2] / 1000)
end

-- Numbers go through here on their way to a key: Lua would write large ones as 1.8e+12.
local function whole(number)
  return string.format('%.0f', number)
end

-- Change the state: a new epoch, a clean slate, one event. What was under way belongs to the past.
local function enter(state, executor, reason, now)
  local breaker_key, probes_key, events_key = KEYS[1], KEYS[2], KEYS[3]
  local epoch = math.max(tonumber(redis.call('HGET', breaker_key, 'epoch') or 0) + 1, now)
  redis.call('HDEL', breaker_key, 'state', 'until_ms', 'failures', 'successes', unpack(WINDOW))
  redis.call('DEL', probes_key)
  redis.call('HSET', breaker_key, 'epoch', whole(epoch), 'reason', reason, 'since_ms', whole(now))
  if state ~= 'closed' then
    redis.call('HSET', breaker_key, 'state', state)
  end
  if COUNTERS[state] then
    redis.call('HINCRBY', breaker_key, COUNTERS[state], 1)
  end
  redis.call('XADD', events_key, 'MAXLEN', '~', MAX_EVENTS, '*', 'executor', executor, 'state', state,
    'epoch', whole(epoch), 'reason', reason)
  return whole(epoch)
end
