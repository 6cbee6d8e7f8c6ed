-- Fifty rows by their ids: the whole table's.
-- @route GET /api/pages/:page
-- @path page integer
-- @cache ttl=10m stale_if_error=0
SELECT coalesce(json_agg(json_build_array(id, v, grp, w, v) ORDER BY id), '[]')
  FROM item WHERE id BETWEEN :page * 50 AND :page * 50 + 49
