-- A row that comes and goes.
-- @route GET /api/blinks/:id
-- @path id integer
-- @cache ttl=10m stale_if_error=0
-- @depends blink(id=:id)
SELECT json_build_array(v) FROM blink WHERE id = :id
