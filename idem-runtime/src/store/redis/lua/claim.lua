-- ARGV: owner; fingerprint and retention (as in a value); lease plus retention; '1' to rerun; the
-- deadline in microseconds by the server's clock.
local fence, attempt
if is_there then
  if kind == 'R' then
    return struct.pack('<BI8', RECORDED, left) .. value
  end
  fence, attempt = struct.unpack('<I8I4', value, 19)
  if lease_left > 0 then
    if string.sub(value, 3, 18) ~= ARGV[1] then
      return struct.pack('<BI8', IN_FLIGHT, lease_left) .. string.sub(value, 19, 62)
    end
    -- A write without an effect, so that WAIT has a write to wait for.
    redis.call('PEXPIRE', key, left)
    return struct.pack('<BI8I4', FRESH, fence, attempt)
  end
  if string.sub(value, 31, 62) ~= string.sub(ARGV[2], 1, 32) or ARGV[4] ~= '1' then
    return struct.pack('<BI8', UNKNOWN, left) .. string.sub(value, 19, 62)
  end
end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
-- A server that was frozen still executes earlier commands. By then the client has given up, and
-- this claim would hold the key for nobody.
if now > tonumber(ARGV[5]) then
  return struct.pack('<BI8', TOO_LATE, now)
end
if is_there then
  fence, attempt = fence + 1, attempt + 1
else
  -- Microseconds since 1970. Higher than every earlier fence of this key, even when no value is
  -- left.
  fence, attempt = now, 1
end
local claimed = '\1C' .. ARGV[1] .. struct.pack('<I8I4', fence, attempt) .. ARGV[2]
redis.call('SET', key, claimed, 'PX', ARGV[3])
return struct.pack('<BI8I4', FRESH, fence, attempt)
