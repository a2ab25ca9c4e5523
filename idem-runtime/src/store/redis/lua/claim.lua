-- ARGV: owner, fingerprint, retention (packed), lease and retention together, whether to rerun.
local fence, attempt
if not is_there then
  -- Microseconds since 1970: above every fence of an earlier claim on this key, though nothing is
  -- left of it.
  local now = redis.call('TIME')
  fence, attempt = now[1] * 1000000 + now[2], 1
elseif kind == 'R' then
  return {RECORDED, value, left}
else
  fence, attempt = struct.unpack('<I8I4', value, 19)
  local fingerprint = string.sub(value, 31, 62)
  if lease_left > 0 then
    if string.sub(value, 3, 18) ~= ARGV[1] then
      return {IN_FLIGHT, fingerprint, lease_left}
    end
    -- A write that changes nothing, so that WAIT has one to wait for.
    redis.call('PEXPIRE', key, left)
    return {FRESH, fence, attempt}
  end
  if fingerprint ~= ARGV[2] or ARGV[5] ~= '1' then
    return {UNKNOWN, fingerprint}
  end
  fence, attempt = fence + 1, attempt + 1
end
local claim = '\1C' .. ARGV[1] .. struct.pack('<I8I4', fence, attempt) .. ARGV[2] .. ARGV[3]
redis.call('SET', key, claim, 'PX', ARGV[4])
return {FRESH, fence, attempt}
