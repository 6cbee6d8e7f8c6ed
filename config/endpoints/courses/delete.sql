-- Deletes a course, and with it its tags, prices, rules and enrolments; not one that has been completed.
-- @route DELETE /api/admin/courses/:id
-- @path id text max=36
WITH gone AS (
    DELETE FROM course WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'DELETE', 'course', id, jsonb_build_object('title', title, 'institutionId', "institutionId"),
           'WARNING', 'ADMIN' FROM gone
)
SELECT json_build_object('success', true) FROM gone
