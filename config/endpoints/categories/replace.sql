-- Changes a category; without a description it keeps the one it has. Its slug stays.
-- @route PUT /api/admin/categories/:id
-- @path id text max=36
-- @body name text required trim min=1 max=50
-- @body description text
WITH changed AS (
    UPDATE category SET
        name = :name,
        description = CASE WHEN :body ? 'description' THEN :description ELSE description END,
        "updatedAt" = now()
    WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'category', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT row_to_json(changed) FROM changed
