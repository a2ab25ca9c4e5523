-- Identifies who stored the value, even if this version cannot read it. The identity is owner and
-- fence: the same for a claim and its record, and another for the next attempt.
local value = redis.pcall('GET', KEYS[1])
local is_string = type(value) == 'string'
local identity = is_string and 'S' .. string.sub(value, 3, 26) or 'X'
-- At the moment of expiry a key is gone, although DEL would still count it.
local is_there = value and redis.call('PTTL', KEYS[1]) ~= 0
if is_string and #value == 26 and string.sub(value, 1, 2) == '\2F' then
  is_there = false
end
