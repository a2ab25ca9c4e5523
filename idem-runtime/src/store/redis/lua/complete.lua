-- ARGV: holder, record, ttl.
if holder ~= ARGV[1] then
  return LOST
end
local record = '\1R' .. ARGV[1] .. ARGV[2]
if kind == 'C' then
  redis.call('SET', key, record, 'PX', ARGV[3])
  return DONE
end
-- The same again is what a holder sends whose first answer got lost. Its record stands, and its time
-- runs on; the write that changes nothing is for WAIT.
if value == record then
  redis.call('PEXPIRE', key, left)
  return DONE
end
return LOST
