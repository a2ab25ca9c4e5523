-- Removes whatever stands there, also what cannot be read. At the moment of its expiry a key is gone,
-- as in head.lua, though DEL would count it as one.
local left = redis.call('PTTL', KEYS[1])
if redis.call('DEL', KEYS[1]) == 1 and left ~= 0 then
  return 1
end
return 0
