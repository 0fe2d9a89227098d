-- announce_apply(KEYS: plan; ARGV: key prefix, token) -> 1, or 0 if the lease was lost
-- An apply that must not be repeated is recorded before it is sent.
write_even_if_full(ARGV[1])
if redis.call('HGET', KEYS[1], 'lease') ~= 'held ' .. ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'applying_ms', whole(server_ms()))
return 1
