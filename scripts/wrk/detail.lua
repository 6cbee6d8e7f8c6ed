-- Single courses: the k-th of all is asked for about 1/k as often as the first (Zipf's law).
--
--   wrk -t2 -c64 -d30s -s scripts/wrk/detail.lua http://127.0.0.1:8080
--
-- PROVOST_ZIPF is the law's exponent (1.0; 0: all alike). lib.lua says what else the environment may say,
-- and what is printed.
local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local lib = dofile(folder .. "lib.lua")
lib.use_ids()

local draw, course

function init()
   lib.seed()
   lib.authorize()
   draw = lib.zipf(lib.count("course"), tonumber(os.getenv("PROVOST_ZIPF")) or 1)
   course = lib.requests(function(n) return "/api/admin/courses/" .. lib.id("course", n) end)
end

function request()
   return course(draw())
end
