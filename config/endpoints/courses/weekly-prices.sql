-- Replaces a course's weekly prices; answers them all. A week that stays keeps its id.
-- @route POST /api/admin/courses/:id/weekly-prices
-- @path id text max=36
-- @body prices json[] {weekNumber integer required min=1 max=53, year integer required min=2000 max=2100, price number required min=0} required max=520
-- @status 200
WITH changed AS (
    UPDATE course SET "updatedAt" = now() WHERE id = :id RETURNING id
), prices AS MATERIALIZED (
    SELECT w.* FROM changed, replace_weekly_prices(changed.id, :prices) w
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'course', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT (SELECT coalesce(json_agg(w ORDER BY w.year, w."weekNumber"), '[]') FROM prices w) FROM changed
