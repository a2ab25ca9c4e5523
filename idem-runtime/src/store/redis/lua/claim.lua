-- ARGV: owner, fingerprint and retention (as in a value), lease and retention together, whether to
-- rerun, and the last moment by the server's clock in microseconds.
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
    -- A write that changes nothing, so that WAIT has one to wait for.
    redis.call('PEXPIRE', key, left)
    return struct.pack('<BI8I4', FRESH, fence, attempt)
  end
  if string.sub(value, 31, 62) ~= string.sub(ARGV[2], 1, 32) or ARGV[4] ~= '1' then
    return struct.pack('<BI8', UNKNOWN, left) .. string.sub(value, 19, 62)
  end
end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
-- A server that stood still executes what had been sent to it. By then its client has given up, and
-- such a claim would hold the key for nobody.
if now > tonumber(ARGV[5]) then
  return struct.pack('<BI8', TOO_LATE, now)
end
if is_there then
  fence, attempt = fence + 1, attempt + 1
else
  -- Microseconds since 1970: above every fence of an earlier claim on this key, though nothing is
  -- left of it.
  fence, attempt = now, 1
end
local claimed = '\1C' .. ARGV[1] .. struct.pack('<I8I4', fence, attempt) .. ARGV[2]
redis.call('SET', key, claimed, 'PX', ARGV[3])
return struct.pack('<BI8I4', FRESH, fence, attempt)
