if not is_there then
  return {NOTHING}
end
if kind == 'R' then
  return {RECORDED, value, left}
end
local fence, attempt = struct.unpack('<I8I4', value, 19)
local fingerprint = string.sub(value, 31, 62)
if lease_left > 0 then
  return {IN_FLIGHT, fingerprint, lease_left, fence, attempt}
end
return {UNKNOWN, fingerprint, left, fence, attempt}
