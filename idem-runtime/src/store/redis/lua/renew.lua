-- ARGV: holder, lease. Only the key's time changes, which Redis does even when it is out of memory.
if kind ~= 'C' or holder ~= ARGV[1] then
  return LOST
end
redis.call('PEXPIRE', key, ARGV[2] + left - lease_left)
return DONE
