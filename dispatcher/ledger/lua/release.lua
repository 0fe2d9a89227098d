-- release(KEYS: due; ARGV: key prefix, target, reason, keep_s) -> ids of the ended plans whose faults held the target.
-- A person says that the faults in doubt on this target are over: the next plan in line may begin.
local due_key = KEYS[1]
local prefix, target, reason, keep_s = unpack(ARGV)
write_even_if_full(prefix)
local now, doubts_key, released = server_ms(), prefix .. 'doubts', {}
for _, id in ipairs(redis.call('ZRANGE', doubts_key, 0, -1)) do
  local plan_key = prefix .. 'plan:' .. id
  if redis.pcall('HGET', plan_key, 'target') == target then
    redis.call('HSET', plan_key, 'released', reason)
    settle_doubt(prefix, due_key, now, keep_s, id, plan_key, target, 0)
    table.insert(released, id)
  end
end
return released
