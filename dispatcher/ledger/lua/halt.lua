-- halt(KEYS: halt; ARGV: key prefix, reason) -> 'OK'
write_even_if_full(ARGV[1])
return redis.call('SET', KEYS[1], ARGV[2])
