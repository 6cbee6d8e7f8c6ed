-- All categories, by name.
-- @route GET /api/admin/categories
-- @cache ttl=10m tags=categories
SELECT coalesce(json_agg(c ORDER BY c.name, c.id), '[]') FROM category c
