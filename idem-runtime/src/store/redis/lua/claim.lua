-- ARGV: owner; fingerprint and retention (as in a value); lease plus retention; '1' to rerun; origin
-- (as in a value); the deadline in microseconds by the server's clock.
local fence, attempt
if is_there then
  if kind == 'R' then
    return struct.pack('<BI8', RECORDED, left) .. value
  end
  fence, attempt = struct.unpack('<I8', value, 19), struct.unpack('<I4', value, 35)
  if lease_left > 0 then
    if string.sub(value, 3, 18) ~= ARGV[1] then
      return struct.pack('<BI8', IN_FLIGHT, lease_left) .. string.sub(value, 19)
    end
    -- A write without an effect, so that WAIT has a write to wait for.
    redis.call('PEXPIRE', key, left)
    return struct.pack('<BI8I4', FRESH, fence, attempt)
  end
  if string.sub(value, 39, 70) ~= string.sub(ARGV[2], 1, 32) or ARGV[4] ~= '1' then
    return struct.pack('<BI8', UNKNOWN, left) .. string.sub(value, 19)
  end
end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
-- A server that was frozen still executes earlier commands. By then the client has given up, and
-- this claim would hold the key for nobody.
if now > tonumber(ARGV[6]) then
  return struct.pack('<BI8', TOO_LATE, now)
end
local created, origin
if is_there then
  fence, attempt = fence + 1, attempt + 1
  created, origin = string.sub(value, 27, 34), string.sub(value, 79)
else
  -- Microseconds since 1970. Higher than every earlier fence of this key, even when no value is
  -- left.
  fence, attempt = now, 1
  created, origin = struct.pack('<I8', now), ARGV[5]
end
local claimed = '\2C' .. ARGV[1] .. struct.pack('<I8', fence) .. created
  .. struct.pack('<I4', attempt) .. ARGV[2] .. origin
redis.call('SET', key, claimed, 'PX', ARGV[3])
return struct.pack('<BI8I4', FRESH, fence, attempt)
