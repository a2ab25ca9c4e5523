-- ARGV: holder, record, ttl.
if holder ~= ARGV[1] then
  return LOST
end
if kind == 'C' then
  redis.call('SET', key, recorded(ARGV[2]), 'PX', ARGV[3])
  return DONE
end
-- A holder whose first reply was lost sends the same record again. The record and its time stay as
-- they are. The write has no effect; WAIT needs it.
if kind == 'R' and string.sub(value, record_at) == ARGV[2] then
  redis.call('PEXPIRE', key, left)
  return DONE
end
return LOST
