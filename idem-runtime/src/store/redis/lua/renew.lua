-- ARGV: holder, lease. Changes only the key's time, which Redis allows even when its memory is
-- full.
if kind ~= 'C' or holder ~= ARGV[1] then
  return LOST
end
redis.call('PEXPIRE', key, ARGV[2] + left - lease_left)
return DONE
