-- One page of the courses list, over and over.
--
--   wrk -t2 -c64 -d10s -s scripts/wrk/courses.lua http://127.0.0.1:8080
--   PROVOST_PATH='/api/admin/users?page=2' wrk ... -s scripts/wrk/courses.lua http://127.0.0.1:8080
--
-- PROVOST_PATH is any other path to ask for. lib.lua says what else the environment may say, and what is
-- printed.
local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local lib = dofile(folder .. "lib.lua")

function init()
   lib.authorize()
   wrk.path = os.getenv("PROVOST_PATH") or "/api/admin/courses"
end
