-- submit(KEYS: plan, due; ARGV: key prefix, keep_s, id, order, target, conflict_policy, batch or '',
--        tags or '', expires_after_ms or '', start_ms or '', patience_ms, traceparent or '')
--   -> {what} with what = 'new', 'known', 'taken' (the id belongs to another plan), 'past' (start_ms has passed),
--      {'halted', reason} or {'conflict', id of the plan that holds the target}
-- A plan that may start at once is begun by its message; `patience_ms` later a worker begins it without one.
-- A known plan that is submitted with another batch belongs to both batches.
local plan_key, due_key = KEYS[1], KEYS[2]
local prefix, keep_s, id, order, target, policy, batch, tags, expires_after_ms, start_ms, patience_ms, traceparent =
  unpack(ARGV)

local function join(batches, state)
  for known in string.gmatch(batches, '%S+') do
    if known == batch then
      return
    end
  end
  redis.call('HSET', plan_key, 'batch', batches == '' and batch or batches .. ' ' .. batch)
  redis.call('RPUSH', prefix .. 'batch:' .. batch, id)
  if FINAL[state] then
    complete(prefix, batch, id, keep_s)
    forget_later(prefix, server_ms(), id, batch, keep_s)
  end
end

local known = redis.call('HMGET', plan_key, 'order', 'batch', 'state')
if known[1] then
  if known[1] ~= order then
    return {'taken'}
  elseif batch ~= '' then
    join(known[2] or '', known[3])
  end
  return {'known'}
end

local reason = redis.call('GET', prefix .. 'halt')
if reason then
  return {'halted', reason}
end

local now_us = server_us()
local now = math.floor(now_us / 1000)
local due = tonumber(start_ms) or now
if due < now then
  return {'past'}
end
if policy == 'reject' and start_ms == '' then
  local holder = first_in_line(prefix, target, now)
  if holder then
    return {'conflict', holder}
  end
end

local fields = {'v', VERSION, 'order', order, 'target', target, 'submitted_ms', whole(now), 'state', 'queued',
  'due_ms', whole(due), 'lease', 'message 0'}
add(fields, 'conflict_policy', policy ~= 'queue' and policy)
add(fields, 'batch', batch)
add(fields, 'tags', tags)
add(fields, 'expires_ms', expires_after_ms ~= '' and whole(due + expires_after_ms))
add(fields, 'traceparent', traceparent)
redis.call('HSET', plan_key, unpack(fields))
redis.call('ZADD', prefix .. 'history', whole(now_us), id)
if batch ~= '' then
  redis.call('RPUSH', prefix .. 'batch:' .. batch, id)
end
if policy ~= 'allow' then
  redis.call('ZADD', prefix .. 'line:' .. target, whole(start_ms == '' and now_us or due * 1000), id)
end
redis.call('ZADD', due_key, whole(start_ms == '' and now + patience_ms or due), id)
redis.call('HINCRBY', prefix .. 'counts', 'submitted', 1)
return {'new'}
