-- Deletes an institution; not one that has a subscription. Its courses become the platform's own, its users nobody's.
-- @route DELETE /api/admin/institutions/:id
-- @path id text max=36
WITH gone AS (
    DELETE FROM institution WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'DELETE', 'institution', id, jsonb_build_object('name', name), 'WARNING', 'ADMIN' FROM gone
)
SELECT json_build_object('success', true) FROM gone
