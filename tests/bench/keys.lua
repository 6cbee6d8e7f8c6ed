-- Asks for /api/bench/1 to /api/bench/PROVOST_KEYS, any of them at random; or, with PROVOST_FILLED, each once
-- and in turn, and makes the file of that name when all are answered. For tests/bench/hit_throughput.
local keys = tonumber(os.getenv("PROVOST_KEYS"))
local filled = os.getenv("PROVOST_FILLED")
local LAST = 1000   -- more than there are connections: the last are still on their way when as many are answered
local before, after
local asked, answered = 0, 0

function init()
   math.randomseed(1)
   wrk.headers["Authorization"] = os.getenv("PROVOST_TOKEN") and "Bearer " .. os.getenv("PROVOST_TOKEN") or nil
   before, after = wrk.format("GET", "/api/bench/@"):match("^(.-)@(.*)$")
end

if filled then
   function request()
      asked = asked % keys + 1
      return before .. asked .. after
   end

   function response()
      answered = answered + 1
      if answered == keys + LAST then
         io.open(filled, "w"):close()
      end
   end
else
   function request()
      return before .. math.random(keys) .. after
   end
end
