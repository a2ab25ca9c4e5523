-- ARGV: holder.
if kind ~= 'C' or holder ~= ARGV[1] then
  return LOST
end
redis.call('PEXPIRE', key, left - lease_left)
return DONE
