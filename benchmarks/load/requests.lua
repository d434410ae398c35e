-- wrk -s requests.lua URL -- FILE...: sends the files, whole HTTP requests, in turns; at the end prints one line of JSON.
-- Where a file ends with zeros, a number takes their place: to the service no two frames of a camera are the same.

local NUMBER = "0000000000"
local requests, sent = {}, 0

function init(files)
  for index = 1, #files do
    local file = assert(io.open(files[index], "rb"))
    local whole = file:read("*a")
    file:close()
    local numbered = whole:sub(-#NUMBER) == NUMBER
    requests[index] = {whole = whole, head = numbered and whole:sub(1, -#NUMBER - 1)}
  end
end

function request()
  local chosen = requests[sent % #requests + 1]
  sent = sent + 1
  return chosen.head and chosen.head .. string.format("%010d", sent) or chosen.whole
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"replies": %d, "seconds": %f, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
end
