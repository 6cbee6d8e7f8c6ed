-- Deletes a tag, also from the courses that carry it. Its children are then at the top.
-- @route DELETE /api/admin/tags/:id
-- @path id text max=36
-- @returns none
WITH gone AS (
    DELETE FROM tag WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'DELETE', 'tag', id, jsonb_build_object('name', name), 'WARNING', 'ADMIN' FROM gone
)
SELECT provost.fail(404, 'There is no such tag.') WHERE NOT EXISTS (SELECT FROM gone)
