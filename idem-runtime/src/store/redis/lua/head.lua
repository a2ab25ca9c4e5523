-- Reads the value of the key before every transition.
--
-- A value is: version (1 byte), kind (1), owner (16), fence (8), and then
--   kind C, a claim:  attempt (4), fingerprint (32), retention in milliseconds (8)
--   kind R, a record: the record's own bytes
--   kind F, a released key: nothing. It counts as no value, and expires after seconds. It tells a holder
--                     whose reply was lost that its release took effect.
-- All numbers are little-endian. The key of a claim expires after its lease plus its retention. So the
-- time left of the lease is the time left of the key minus the retention.
--
-- A reply is a number if the number says everything, and otherwise one string, because a list is slower
-- for the server and the client. The string is: what was found (1 byte), and then
--   FRESH:               fence (8), attempt (4)
--   IN_FLIGHT, UNKNOWN:  milliseconds left (8); fence, attempt and fingerprint, as in the value
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
if is_there then
  kind, holder = string.sub(value, 2, 2), string.sub(value, 3, 26)
  local is_claim = kind == 'C' and #value == 70
  local is_record = kind == 'R' and #value > 26
  local is_freed = kind == 'F' and #value == 26
  if string.byte(value) ~= 1 or left < 0 or not (is_claim or is_record or is_freed) then
    return string.char(UNREADABLE, string.byte(value) or 1)
  end
  if is_claim then
    lease_left = left - struct.unpack('<I8', value, 63)
  elseif is_freed then
    is_there, kind, holder, freed = false, '', '', holder
  end
end
