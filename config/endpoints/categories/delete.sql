-- Deletes a category that no course is in.
-- @route DELETE /api/admin/categories/:id
-- @path id text max=36
-- @returns none
WITH gone AS (
    DELETE FROM category WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'DELETE', 'category', id, jsonb_build_object('name', name), 'WARNING', 'ADMIN' FROM gone
)
SELECT provost.fail(404, 'There is no such category.') WHERE NOT EXISTS (SELECT FROM gone)
