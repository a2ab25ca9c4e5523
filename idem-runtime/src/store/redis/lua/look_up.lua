if not is_there then
  return {NOTHING}
end
if kind == 'R' then
  return {RECORDED, redis.call('GET', key), left}
end
local fence, attempt = struct.unpack('<I8I4', string.sub(head, 19, 30))
local fingerprint = string.sub(head, 31, 62)
if lease_left > 0 then
  return {IN_FLIGHT, fingerprint, lease_left, fence, attempt}
end
return {UNKNOWN, fingerprint, left, fence, attempt}
