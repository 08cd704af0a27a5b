-- Random keys of a fixed set: arguments are the kind of request and how many keys there are, or,
-- as a third one, a file that names them.
-- The last line that is printed is what was measured, as JSON.
local kind, keys, named

function init(args)
  kind, keys = args[1], tonumber(args[2])
  if args[3] then
    named = {}
    for line in io.lines(args[3]) do named[#named + 1] = line end
  end
  math.randomseed(tonumber(tostring({}):sub(8), 16) % 2147483647)
end

local function any_key()
  if named then return named[math.random(#named)] end
  return "key-" .. math.random(0, keys - 1)
end

function request()
  local key = any_key()
  if kind == "get" then return wrk.format("GET", "/v1/keys/" .. key) end
  if kind == "set" then return wrk.format("PUT", "/v1/keys/" .. key, nil, "value") end
  if kind == "webdis-get" then return wrk.format("GET", "/GET/" .. key) end
  if kind == "webdis-set" then return wrk.format("PUT", "/SET/" .. key, nil, "value") end
  if kind == "flask-get" then return wrk.format("GET", "/get/" .. key) end
  if kind == "flask-set" then return wrk.format("PUT", "/set/" .. key, nil, "value") end
  local parts = {}
  for i = 1, 100 do
    key = any_key()
    if kind == "batch" then parts[i] = '{"op":"get","key":"' .. key .. '"}'
    elseif kind == "mget" then parts[i] = '"' .. key .. '"'
    else parts[i] = '["GET","' .. key .. '"]' end
  end
  local body = table.concat(parts, ",")
  if kind == "batch" then
    return wrk.format("POST", "/v1/batch", nil, '{"operations":[' .. body .. "]}")
  elseif kind == "mget" then
    return wrk.format("POST", "/", nil, '["MGET",' .. body .. "]")
  end
  return wrk.format("POST", "/pipeline", nil, "[" .. body .. "]")
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6, failed,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
