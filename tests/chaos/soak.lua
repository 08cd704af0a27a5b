-- Nine GETs to one PUT of random keys; arguments: how many keys there are, and how long each
-- connection pauses between two requests, in ms, on the average.
-- The last line that is printed is what was measured, as JSON.
local keys, pause

function init(args)
  keys, pause = tonumber(args[1]), tonumber(args[2])
  math.randomseed(tonumber(tostring({}):sub(8), 16) % 2147483647)
end

function delay()
  return math.floor(pause + math.random())  -- wrk knows whole milliseconds
end

function request()
  local path = "/v1/keys/soak-" .. math.random(0, keys - 1)
  if math.random(10) == 1 then return wrk.format("PUT", path, nil, "value") end
  return wrk.format("GET", path)
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f, "p999_ms": %f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
