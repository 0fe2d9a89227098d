-- renew(KEYS: due; ARGV: key prefix, lease_ms, id, token, id, token, ...) -> 1 for each lease that holds, otherwise 0
local due_key, prefix, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local doubts_key = prefix .. 'doubts'
write_even_if_full(prefix)
local lease_ends, standing = whole(server_ms() + lease_ms), {}
local in_doubt = redis.call('EXISTS', doubts_key) == 1
for index = 3, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  local held = redis.call('HGET', prefix .. 'plan:' .. id, 'lease') == 'held ' .. token
  if held then
    redis.call('ZADD', due_key, 'XX', lease_ends, id)
    if in_doubt then
      redis.call('ZADD', doubts_key, 'XX', lease_ends, id)
    end
  end
  table.insert(standing, held and 1 or 0)
end
return standing
