-- What a listing needs of a value: 0 when nothing is there, or one string of the milliseconds left (8, signed), the
-- length of the value (8), and its beginning. Does not read a long record as a whole.
local value = redis.pcall('GETRANGE', KEYS[1], 0, 1023)
if type(value) ~= 'string' then
  if not string.find(value.err, 'WRONGTYPE', 1, true) then
    -- Such as a missing right, which does not make a record unreadable.
    return redis.error_reply(value.err .. ' (GETRANGE)')
  end
  -- Another type of value. It cannot be read either.
  value = '\0'
end
local left = redis.call('PTTL', KEYS[1])
if value == '' or left == 0 or left == -2 or string.sub(value, 2, 2) == 'F' then
  return 0
end
local length = redis.pcall('STRLEN', KEYS[1])
if type(length) ~= 'number' then
  if not string.find(length.err, 'WRONGTYPE', 1, true) then
    return redis.error_reply(length.err .. ' (STRLEN)')
  end
  length = 0
end
return struct.pack('<i8I8', left, length) .. value
