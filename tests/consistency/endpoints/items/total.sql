-- How many rows there are, and the sum of their versions.
-- @route GET /api/total
-- @cache ttl=10m stale_if_error=0
SELECT json_build_array(count(*), coalesce(sum(v), 0)) FROM item
