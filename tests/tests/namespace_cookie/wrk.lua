-- Every request on a connection of its own, each with one of 40 sessions of its thread. The answer tells which
-- backend it is and which session it read.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init()
  count, moved, foreign, failed, sessions, owners = 0, 0, 0, 0, 0, {}
end

function request()
  count = count + 1
  local session = "w" .. number .. "x" .. count % 40
  return wrk.format("GET", nil, { ["Cookie"] = "SESS=" .. session, ["Connection"] = "close" })
end

function response(status, _, body)
  local backend, session = body:match('"backend":"(%w+)".*"session":"(%w+)"')
  if status ~= 200 or not backend then
    failed = failed + 1
    return
  end
  if not session:find("^w" .. number .. "x") then
    foreign = foreign + 1
  end
  if not owners[session] then
    sessions = sessions + 1
    owners[session] = backend
  elseif owners[session] ~= backend then
    moved = moved + 1
  end
end

function done()
  local sum = { sessions = 0, moved = 0, foreign = 0, failed = 0 }
  for _, thread in ipairs(threads) do
    for name, value in pairs(sum) do
      sum[name] = value + thread:get(name)
    end
  end
  print(("sessions %d moved %d foreign %d failed %d"):format(sum.sessions, sum.moved, sum.foreign, sum.failed))
end
