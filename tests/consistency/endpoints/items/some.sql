-- The rows that are asked for.
-- @route GET /api/some
-- @query ids integer[] required
-- @cache ttl=10m stale_if_error=0
-- @depends item(id=:ids), note(item=:ids)
SELECT coalesce(json_agg(json_build_array(i.id, i.v, i.grp, i.w, n.v) ORDER BY i.id), '[]')
  FROM item i JOIN note n ON n.item = i.id WHERE i.id = ANY (:ids)
