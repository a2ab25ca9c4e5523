-- ARGV: fence (packed), record, ttl.
if kind ~= 'C' or string.sub(holder, 17) ~= ARGV[1] or lease_left > 0 then
  return LOST
end
redis.call('SET', key, '\1R' .. holder .. ARGV[2], 'PX', ARGV[3])
return DONE
