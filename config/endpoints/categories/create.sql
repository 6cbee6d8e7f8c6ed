-- Creates a category.
-- @route POST /api/admin/categories
-- @body name text required trim min=1 max=50
-- @body description text
WITH made AS MATERIALIZED (
    SELECT * FROM insert_with_slug(NULL::category, :name, :body)
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'CREATE', 'category', id, :body, 'INFO', 'ADMIN' FROM made
)
SELECT row_to_json(made) FROM made
