-- ARGV: holder.
if kind ~= 'C' or holder ~= ARGV[1] then
  return LOST
end
redis.call('DEL', key)
return DONE
