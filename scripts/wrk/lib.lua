-- What the wrk scripts of this folder share. Not a script of its own.
--
-- Environment:
--   PROVOST_TOKEN    sent as `Authorization: Bearer` when set
--   PROVOST_IDS      a file of ids for data that are not the demo's, `KIND ID` a line, the most wanted
--                    first; KIND is course, institution, user or category
--   PROVOST_SEED     of the choices (1); each thread has its own, derived from it
--   PROVOST_COUNT    0: do not look at the answers. wrk copies each into Lua to be looked at, which costs
--                    it about a tenth of its rate; what the server counted is printed all the same.
--
-- Besides wrk's figures: the hit rate by the answers' Cache-Status (RFC 9211), answers that were not 2xx
-- by status, and the differences of what GET /api/admin/cache counts.

local bit = require("bit")
local lib = {}

-- Globals, because only those can be read from done().
hit, stale, collapsed, miss, bypass, unmarked = 0, 0, 0, 0, 0, 0
statuses = {}

local function die(text)
   io.stderr:write("wrk script: ", text, "\n")
   os.exit(1)
end

-- ---- the server, asked with curl -------------------------------------------------------------------

local function base()
   return string.format("%s://%s:%s", wrk.scheme, wrk.host, wrk.port or (wrk.scheme == "https" and 443 or 80))
end

-- The status and the body. The token goes through a pipe: a command line is for everybody to read.
local function ask(path)
   local quoted = "'" .. (base() .. path):gsub("'", "'\\''") .. "'"
   local token = os.getenv("PROVOST_TOKEN") and
      [[printf 'header = "Authorization: Bearer %s"\n' "$PROVOST_TOKEN" | curl -K -]] or "curl"
   local pipe = io.popen(token .. " -s -m 30 -w '\\n%{http_code}' " .. quoted)
   local text = pipe:read("*a")
   pipe:close()
   local body, status = text:match("^(.*)\n(%d+)%s*$")
   return tonumber(status), body
end

local function number(text, name)
   return text and tonumber(text:match('"' .. name .. '"%s*:%s*(%d+)'))
end

local COUNTED = {"hits", "misses", "collapsed", "statements"}

-- What the server has counted so far; nil where it does not say.
local function counters()
   local status, body = ask("/api/admin/cache")
   if status ~= 200 then
      return nil
   end
   local found = {}
   for _, name in ipairs(COUNTED) do
      found[name] = number(body, name)
   end
   return found
end

-- ---- ids --------------------------------------------------------------------------------------------

local band, bor, bnot, bxor = bit.band, bit.bor, bit.bnot, bit.bxor
local rol, tobit = bit.rol, bit.tobit

local SHIFT = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}
local SINE = {}
for i = 1, 64 do
   SINE[i] = tobit(math.floor(math.abs(math.sin(i)) * 2 ^ 32))
end

-- The 16 words of a text of up to 55 bytes, padded (RFC 1321, section 3).
local function words(text)
   local w, n = {}, #text
   for i = 0, 15 do
      w[i] = 0
   end
   for i = 0, n do
      local byte = i < n and text:byte(i + 1) or 0x80
      local at = bit.rshift(i, 2)
      w[at] = bor(w[at], bit.lshift(byte, 8 * (i % 4)))
   end
   w[14] = 8 * n
   return w
end

local function md5(text)
   local w = words(text)
   local a, b, c, d = 0x67452301, tobit(0xefcdab89), tobit(0x98badcfe), 0x10325476
   for i = 0, 63 do
      local round, f, g = bit.rshift(i, 4)
      if round == 0 then
         f, g = bor(band(b, c), band(bnot(b), d)), i
      elseif round == 1 then
         f, g = bor(band(d, b), band(bnot(d), c)), (5 * i + 1) % 16
      elseif round == 2 then
         f, g = bxor(b, c, d), (3 * i + 5) % 16
      else
         f, g = bxor(c, bor(b, bnot(d))), (7 * i) % 16
      end
      local sum = tobit(a + f + SINE[i + 1] + w[g])
      a, d, c, b = d, c, b, tobit(b + rol(sum, SHIFT[round + 1][i % 4 + 1]))
   end
   local hex = {}
   for i, v in ipairs({a + 0x67452301, b + tobit(0xefcdab89), c + tobit(0x98badcfe), d + 0x10325476}) do
      hex[i] = bit.tohex(bit.bswap(tobit(v)))
   end
   return table.concat(hex)
end

-- The id of row n of a kind, as config/demo/generate.sql makes it.
local function demo_id(kind, n)
   local h = md5(kind .. n)
   return table.concat({h:sub(1, 8), h:sub(9, 12), h:sub(13, 16), h:sub(17, 20), h:sub(21)}, "-")
end

local DEMO_CATEGORIES = 33

-- How many of each kind there are, once it is clear that the ids are the demo's.
local function demo_totals()
   local status, body = ask("/api/admin/courses?limit=1")
   local courses = status == 200 and number(body, "total")
   if not courses or courses == 0 then
      die(string.format("GET %s/api/admin/courses answers %s: is it Provost with the demo, is PROVOST_TOKEN good?",
                        base(), tostring(status)))
   end
   for _, n in ipairs({1, courses}) do
      if ask("/api/admin/courses/" .. demo_id("course", n)) ~= 200 then
         die("these are not the demo's data as they were generated: name a file of ids in PROVOST_IDS")
      end
   end
   status, body = ask("/api/admin/stats")
   return {course = courses, category = DEMO_CATEGORIES, institution = number(body, "totalInstitutions") or 0,
           user = number(body, "totalUsers") or 0}
end

local function read_ids(file)
   local ids = {course = {}, institution = {}, user = {}, category = {}}
   local f, why = io.open(file)
   if not f then
      die(why)
   end
   for line in f:lines() do
      local kind, id = line:match("^(%l+)%s+([%w%-_]+)%s*$")
      if not ids[kind] then
         die(file .. ": write `course ID` (or institution, user, category): " .. line)
      end
      table.insert(ids[kind], id)
   end
   f:close()
   return ids
end

local from_file

-- The number of ids of a kind, and the n-th of them, from 1: the most wanted first.
function lib.count(kind)
   from_file = from_file or (os.getenv("PROVOST_IDS") and read_ids(os.getenv("PROVOST_IDS")))
   return from_file and #from_file[kind] or totals[kind]
end

function lib.id(kind, n)
   return from_file and from_file[kind][n] or demo_id(kind, n)
end

-- ---- choosing ---------------------------------------------------------------------------------------

function lib.seed()
   math.randomseed((tonumber(os.getenv("PROVOST_SEED")) or 1) * 1000 + (thread_number or 0))
end

-- A function that gives k of 1..n about 1/k^s as often as 1: a binary search in the summed weights.
function lib.zipf(n, s)
   local sum, total = {}, 0
   for k = 1, n do
      total = total + 1 / k ^ s
      sum[k] = total
   end
   return function()
      local x, low, high = math.random() * total, 1, n
      while low < high do
         local middle = math.floor((low + high) / 2)
         if sum[middle] < x then
            low = middle + 1
         else
            high = middle
         end
      end
      return low
   end
end

-- ---- requests ---------------------------------------------------------------------------------------

function lib.authorize()
   local token = os.getenv("PROVOST_TOKEN")
   if token and token ~= "" then
      wrk.headers["Authorization"] = "Bearer " .. token
   end
end

-- A function that gives the request number n, formatted once: path_of(n) is its path.
function lib.requests(path_of)
   local made = {}
   return function(n)
      local text = made[n]
      if not text then
         text = wrk.format("GET", path_of(n))
         made[n] = text
      end
      return text
   end
end

-- ---- what came of it --------------------------------------------------------------------------------

local threads = {}
local before

-- For scripts that draw ids: asks for what is needed to know them.
function lib.use_ids()
   lib.uses_ids = true
end

function setup(thread)
   if #threads == 0 then
      if lib.uses_ids and not os.getenv("PROVOST_IDS") then
         totals = demo_totals()
      end
      before = counters()
   end
   table.insert(threads, thread)
   thread:set("thread_number", #threads)
   if totals then
      thread:set("totals", totals)
   end
end

-- The few hundred forms that Cache-Status takes are looked into once each.
local class = {}

local function classify(text)
   local found = "miss"
   if text:find("collapsed", 1, true) then
      found = "collapsed"
   elseif text:find("; hit", 1, true) then
      found = text:find("detail=", 1, true) and "stale" or "hit"
   elseif text:find("fwd=bypass", 1, true) then
      found = "bypass"
   end
   class[text] = found
   return found
end

local function look_at(status, headers)
   if status < 200 or status > 299 then
      local name = "status " .. status
      statuses[name] = (statuses[name] or 0) + 1
      return
   end
   local text = headers["Cache-Status"]
   local what = text and (class[text] or classify(text))
   if what == "hit" then
      hit = hit + 1
   elseif what == "miss" then
      miss = miss + 1
   elseif what == "collapsed" then
      collapsed = collapsed + 1
   elseif what == "stale" then
      stale = stale + 1
   elseif what == "bypass" then
      bypass = bypass + 1
   else
      unmarked = unmarked + 1
   end
end

if os.getenv("PROVOST_COUNT") ~= "0" then
   response = look_at
end

local function summed(name)
   local sum = 0
   for _, thread in ipairs(threads) do
      sum = sum + thread:get(name)
   end
   return sum
end

local function print_answers()
   local hits, stales, collapses = summed("hit"), summed("stale"), summed("collapsed")
   local misses, bypasses = summed("miss"), summed("bypass")
   local known = hits + stales + collapses + misses + bypasses
   if known > 0 then
      print(string.format("Hit rate:     %.2f%% of %d (hit %d, stale %d, collapsed %d, miss %d, not cached %d)",
                          100 * (hits + stales) / known, known, hits, stales, collapses, misses, bypasses))
   end
   local others = summed("unmarked")
   if others > 0 then
      print(string.format("Answers without Cache-Status: %d", others))
   end
   local all, names = {}, {}
   for _, thread in ipairs(threads) do
      for name, n in pairs(thread:get("statuses")) do
         if not all[name] then
            table.insert(names, name)
         end
         all[name] = (all[name] or 0) + n
      end
   end
   table.sort(names)
   for _, name in ipairs(names) do
      print(string.format("Answers with %s: %d", name, all[name]))
   end
end

local function print_counters(requests)
   local after = counters()
   if not before or not after then
      print("Server:       it has no GET /api/admin/cache to ask")
      return
   end
   local said = {}
   for _, name in ipairs(COUNTED) do
      if before[name] and after[name] then
         table.insert(said, string.format("%s %d", name, after[name] - before[name]))
      end
   end
   print("Server:       " .. table.concat(said, ", "))
   if before.statements and after.statements and requests > 0 then
      print(string.format("Statements:   %.4f a request", (after.statements - before.statements) / requests))
   end
end

function done(summary)
   if response then
      print_answers()
   end
   local e = summary.errors
   local failed = e.connect + e.read + e.write + e.timeout
   if failed > 0 then
      print(string.format("Failed:       %d (connect %d, read %d, write %d, timeout %d)", failed, e.connect, e.read,
                          e.write, e.timeout))
   end
   print_counters(summary.requests)
end

return lib
