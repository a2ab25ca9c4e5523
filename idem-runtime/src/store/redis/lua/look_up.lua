if not is_there then
  return NOTHING
end
if kind == 'R' then
  return struct.pack('<BI8', RECORDED, left) .. value
end
if lease_left > 0 then
  return struct.pack('<BI8', IN_FLIGHT, lease_left) .. string.sub(value, 19)
end
return struct.pack('<BI8', UNKNOWN, left) .. string.sub(value, 19)
