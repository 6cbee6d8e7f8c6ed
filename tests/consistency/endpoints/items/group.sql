-- The rows of a group: which they are depends on what is written.
-- @route GET /api/groups/:grp
-- @path grp integer
-- @cache ttl=10m stale_if_error=0
-- @depends item(grp=:grp)
SELECT coalesce(json_agg(json_build_array(id, v, grp, w, v) ORDER BY id), '[]') FROM item WHERE grp = :grp
