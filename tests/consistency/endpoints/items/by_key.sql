-- One row by its text.
-- @route GET /api/by-key
-- @query key text required
-- @cache ttl=10m stale_if_error=0
-- @depends item(key=:key)
SELECT json_build_array(json_build_array(id, v, grp, w, v)) FROM item WHERE key = :key
