-- ARGV: identity. The store runs this script when the reply to a release or a removal was lost, and the
-- repeated command found nothing to remove. Returns 1 when the claim or record with this identity was
-- removed. Returns 0 when it still exists or another attempt took it over.
--
-- A takeover adds 1 to the fence. A claim of a free key sets the fence to the clock in microseconds.
-- The fences of two claims of a free key differ by more than these steps.
local STEPS = 16
local function fence_of(it)
  return #it == 25 and struct.unpack('<I8', it, 18) or 0
end
if is_there then
  local steps = fence_of(identity) - fence_of(ARGV[1])
  if identity == ARGV[1] or steps > 0 and steps <= STEPS then
    return 0
  end
end
-- A write without a visible effect, because WAIT waits only for writes.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
elseif not is_there then
  redis.pcall('SET', KEYS[1], '\2F' .. string.rep('\0', 24), 'PX', 10000)
end
return 1
