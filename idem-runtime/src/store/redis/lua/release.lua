-- ARGV: holder.
if freed == ARGV[1] then
  -- Sent again after its reply was lost. The write has no effect; WAIT needs it.
  redis.call('PEXPIRE', key, left)
  return DONE
end
if kind ~= 'C' or holder ~= ARGV[1] then
  return LOST
end
-- A server whose memory is full refuses SET, but never DEL.
if redis.pcall('SET', key, '\2F' .. ARGV[1], 'PX', 10000).err then
  redis.call('DEL', key)
end
return DONE
