-- ARGV: holder, record, ttl.
if holder ~= ARGV[1] then
  return LOST
end
local record = '\1R' .. ARGV[1] .. ARGV[2]
if kind == 'C' then
  redis.call('SET', key, record, 'PX', ARGV[3])
  return DONE
end
-- A holder whose first reply was lost sends the same record again. The record and its time stay as
-- they are. The write has no effect; WAIT needs it.
if value == record then
  redis.call('PEXPIRE', key, left)
  return DONE
end
return LOST
