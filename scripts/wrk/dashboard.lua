-- What an admin dashboard asks for, all together: lists and searches, single courses, and the rest of the
-- demo's reads, in the shares below. Whatever has ids is drawn by Zipf's law (exponent 1) from all of them,
-- and so are the lists from all their pages, filters and searches.
--
--   wrk -t2 -c64 -d60s -s scripts/wrk/dashboard.lua http://127.0.0.1:8080
--
-- lib.lua says what the environment may say, and what is printed.
local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local lib = dofile(folder .. "lib.lua")
lib.use_ids()

local PAGES = 200         -- of the unfiltered list; with ten courses each
local FILTERED_PAGES = 3
local WORDS = {"english", "business", "ielts", "french", "exam", "german", "toefl", "academic", "intensive", "jlpt",
               "hsk", "conversation", "summer", "online", "cambridge", "legal"}
local NAMES = {"amelia", "smith", "garcia", "wei", "tanaka", "nowak", "patel", "olivia", "kim", "rossi"}

local function add(list, ...)
   table.insert(list, string.format(...))
end

local function course_lists(list)
   local pages = math.max(1, math.min(PAGES, math.ceil(lib.count("course") / 10)))
   for page = 1, pages do
      add(list, "/api/admin/courses?page=%d", page)
   end
   for page = 1, FILTERED_PAGES do
      for _, status in ipairs({"PUBLISHED", "DRAFT", "ARCHIVED"}) do
         add(list, "/api/admin/courses?status=%s&page=%d", status, page)
      end
      for _, sort in ipairs({"title", "base_price", "-base_price", "-priority"}) do
         add(list, "/api/admin/courses?sort=%s&page=%d", sort, page)
      end
      for n = 1, lib.count("category") do
         add(list, "/api/admin/courses?categoryId=%s&page=%d", lib.id("category", n), page)
      end
      for _, word in ipairs(WORDS) do
         add(list, "/api/admin/courses?search=%s&page=%d", word, page)
      end
   end
   for n = 1, lib.count("institution") do
      add(list, "/api/admin/courses?institutionId=%s", lib.id("institution", n))
   end
end

local function other_lists(list)
   for page = 1, 20 do
      add(list, "/api/admin/users?page=%d", page)
      add(list, "/api/admin/payments?page=%d", page)
   end
   for _, role in ipairs({"ADMIN", "INSTITUTION", "INSTRUCTOR", "STUDENT"}) do
      add(list, "/api/admin/users?role=%s", role)
   end
   for _, name in ipairs(NAMES) do
      add(list, "/api/admin/users?search=%s", name)
   end
   for _, status in ipairs({"PENDING", "COMPLETED", "FAILED"}) do
      add(list, "/api/admin/payments?status=%s", status)
   end
   add(list, "/api/admin/institutions")
   add(list, "/api/admin/institutions?search=academy")
end

-- In an order of its own, the same in every thread: which lists are wanted most is nobody's alphabet.
local function shuffled(list)
   math.randomseed(1)
   for i = #list, 2, -1 do
      local j = math.random(i)
      list[i], list[j] = list[j], list[i]
   end
   return list
end

-- A function that gives a request for one of the paths.
local function among(paths)
   local draw = lib.zipf(#paths, 1)
   local request_of = lib.requests(function(n) return paths[n] end)
   return function() return request_of(draw()) end
end

-- The same for the ids of a kind, format being that of the path.
local function ids(kind, format)
   local n = lib.count(kind)
   if n == 0 then
      return nil
   end
   local draw = lib.zipf(n, 1)
   local request_of = lib.requests(function(i) return string.format(format, lib.id(kind, i)) end)
   return function() return request_of(draw()) end
end

local function mix()
   local lists = {}
   course_lists(lists)
   other_lists(lists)
   return {
      {35, among(shuffled(lists))},
      {35, ids("course", "/api/admin/courses/%s")},
      {8, ids("course", "/api/admin/courses/%s/enrollments")},
      {6, ids("user", "/api/admin/users/%s")},
      {3, ids("institution", "/api/admin/institutions/%s")},
      {2, ids("institution", "/api/admin/institutions/%s/courses")},
      {3, among({"/api/admin/stats"})},
      {3, among({"/api/admin/payments/pending-count"})},
      {3, among({"/api/admin/categories", "/api/admin/tags", "/api/admin/tags?include=hierarchy"})},
      {2, among({"/api/admin/subscriptions/stats", "/api/admin/subscriptions",
                 "/api/admin/revenue?type=metrics&startDate=2025-12-01&endDate=2025-12-31",
                 "/api/admin/revenue?type=breakdown&startDate=2025-01-01&endDate=2025-12-31"})},
   }
end

local slot = {}

function init()
   lib.authorize()
   for _, part in ipairs(mix()) do
      for _ = 1, part[2] and part[1] or 0 do
         table.insert(slot, part[2])
      end
   end
   lib.seed()
end

function request()
   return slot[math.random(#slot)]()
end
