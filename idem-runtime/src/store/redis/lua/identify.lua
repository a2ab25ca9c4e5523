if is_there then
  return identity
end
return 0
