-- claim_due(KEYS: due, queue, counts; ARGV: plan key prefix, limit, patience_ms, max_patience_ms)
--   -> {ms until the next plan is due or -1, id, order, urgent, id, order, urgent, ...}
-- Each plan moves on in `due` by its patience, which doubles each time nobody takes it up. A plan that was woken before
-- is claimed again only where its wake-up cannot be in the queue any more, for the queue is empty, or at the longest
-- patience: a backlog is not doubled, and a lost wake-up is replaced even so. `urgent` is 1 for a cancelled plan that
-- no worker has taken up so far.
local due_key, queue_key, counts_key = KEYS[1], KEYS[2], KEYS[3]
local plan_prefix, limit = ARGV[1], ARGV[2]
local patience_ms, max_patience_ms = tonumber(ARGV[3]), tonumber(ARGV[4])

local now = server_ms()
local backlog = redis.call('LLEN', queue_key) > 0
local claimed = {-1}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key, '-inf', whole(now), 'LIMIT', 0, limit)) do
  local plan_key = plan_prefix .. id
  local known = redis.call('HMGET', plan_key, 'order', 'cancelled')
  if known[1] then
    local wakes = redis.call('HINCRBY', plan_key, 'wakes', 1)
    local patience = math.min(patience_ms * 2 ^ (wakes - 1), max_patience_ms)
    redis.call('ZADD', due_key, whole(now + patience), id)
    if wakes == 1 or known[2] or not backlog or patience == max_patience_ms then
      table.insert(claimed, id)
      table.insert(claimed, known[1])
      table.insert(claimed, known[2] and wakes > 1 and 1 or 0)
    end
  else
    redis.call('ZREM', due_key, id)
  end
end
if #claimed > 1 then
  redis.call('HINCRBY', counts_key, 'wake_ups', (#claimed - 1) / 3)
end

local next_due = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
if next_due[2] then
  claimed[1] = math.max(0, math.floor(next_due[2] - now))
end
return claimed
