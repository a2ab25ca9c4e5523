-- ARGV: fence (packed), record, ttl.
if string.sub(holder, 17) ~= ARGV[1] then
  return LOST
end
if kind == 'R' and string.sub(value, record_at) == ARGV[2] then
  -- Sent again after its reply was lost. The record keeps its time. The write has no effect; WAIT
  -- needs it.
  redis.call('PEXPIRE', key, left)
  return DONE
end
if kind ~= 'C' or lease_left > 0 then
  return LOST
end
redis.call('SET', key, recorded(ARGV[2]), 'PX', ARGV[3])
return DONE
