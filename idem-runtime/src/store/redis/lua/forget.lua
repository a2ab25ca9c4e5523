-- ARGV: identity.
if is_there and identity == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1
end
return 0
