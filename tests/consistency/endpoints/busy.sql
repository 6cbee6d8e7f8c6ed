-- Holds a connection.
-- @route GET /api/busy
-- @query ms integer default=100 max=5000
-- @query n integer default=0
-- @cache off
SELECT json_build_array(:n, pg_sleep(:ms / 1000.0)::text)
