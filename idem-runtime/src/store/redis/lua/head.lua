-- Reads the value of the key before every transition.
--
-- A value is: version (1 byte), kind (1), owner (16), fence (8), and then
--   kind C, a claim:  time of creation (8), attempt (4), fingerprint (32), retention in milliseconds
--                     (8), origin
--   kind R, a record: time of creation (8), time of settling (8), length of the origin (2), origin, the
--                     record's own bytes
--   kind F, a released key: nothing. It counts as no value, and expires after seconds. It tells a holder
--                     whose reply was lost that its release took effect.
-- An origin is: trace id (16, zeros without one), length (1) and text of the endpoint, length (1) and text
-- of the label. Times are in microseconds since 1970.
-- All numbers are little-endian. The key of a claim expires after its lease plus its retention. So the
-- time left of the lease is the time left of the key minus the retention.
--
-- A reply is a number if the number says everything, and otherwise one string, because a list is slower
-- for the server and the client. The string is: what was found (1 byte), and then
--   FRESH:               fence (8), attempt (4)
--   IN_FLIGHT, UNKNOWN:  milliseconds left (8); the value from its fence on
--   RECORDED:            milliseconds left (8); the value
--   UNREADABLE:          its version (1)
--   TOO_LATE:            the server's clock in microseconds (8)
local NOTHING, FRESH, IN_FLIGHT, RECORDED, UNKNOWN, UNREADABLE, TOO_LATE = 0, 1, 2, 3, 4, 5, 6
local LOST, DONE = 0, 1

local key = KEYS[1]
-- Reads the whole value: a second read of a record would cost more than the copy.
local value = redis.call('GET', key)
local left = value and redis.call('PTTL', key) or 0
local is_there = left ~= 0 and left ~= -2
local kind, holder, freed = '', '', ''
local lease_left = 0
-- Where the bytes of a record begin.
local record_at = 0
if is_there then
  kind, holder = string.sub(value, 2, 2), string.sub(value, 3, 26)
  local is_claim = kind == 'C' and #value >= 96
  if kind == 'R' and #value > 44 then
    record_at = 45 + struct.unpack('<I2', value, 43)
  end
  local is_record = record_at > 0 and #value >= record_at
  local is_freed = kind == 'F' and #value == 26
  if string.byte(value) ~= 2 or left < 0 or not (is_claim or is_record or is_freed) then
    return string.char(UNREADABLE, string.byte(value) or 1)
  end
  if is_claim then
    lease_left = left - struct.unpack('<I8', value, 71)
  elseif is_freed then
    is_there, kind, holder, freed = false, '', '', holder
  end
end

-- What takes the place of the claim in `value`.
local function recorded(record)
  local now = redis.call('TIME')
  local origin = string.sub(value, 79)
  return '\2R' .. string.sub(value, 3, 34)
    .. struct.pack('<I8I2', now[1] * 1000000 + now[2], #origin) .. origin .. record
end
