-- Creates a tag; answers it as the list does.
-- @route POST /api/admin/tags
-- @body name text required trim min=1 max=50
-- @body description text
-- @body categoryId text max=36
-- @body parentId text max=36
-- @body color text trim max=7
-- @body icon text trim max=50
-- @body featured boolean
-- @body priority integer min=0
WITH made AS MATERIALIZED (
    SELECT * FROM insert_with_slug(NULL::tag, :name, :body)
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'CREATE', 'tag', id, :body, 'INFO', 'ADMIN' FROM made
)
SELECT row_to_json(item) FROM (
    SELECT t.*, json_build_object('courses', 0, 'children', 0) AS _count FROM made t
) item
