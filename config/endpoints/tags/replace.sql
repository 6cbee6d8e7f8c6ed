-- Changes a tag; answers it as the list does. What is left out keeps its value, and so does its slug.
-- @route PUT /api/admin/tags/:id
-- @path id text max=36
-- @body name text required trim min=1 max=50
-- @body description text
-- @body categoryId text max=36
-- @body parentId text max=36
-- @body color text trim max=7
-- @body icon text trim max=50
-- @body featured boolean
-- @body priority integer min=0
WITH changed AS (
    UPDATE tag SET (
        name, description, "categoryId", "parentId", color, icon, featured, priority, "updatedAt") = (SELECT
        n.name, n.description, n."categoryId", n."parentId", n.color, n.icon, n.featured, n.priority, now()
        FROM jsonb_populate_record(tag, :body) n)
    WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'tag', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT row_to_json(item) FROM (
    SELECT t.*,
           json_build_object(
               'courses', (SELECT coalesce(sum(c.n), 0) FROM tag_course_counts c WHERE c."tagId" = t.id),
               'children', (SELECT count(*) FROM tag k WHERE k."parentId" = t.id)) AS _count
    FROM changed t
) item
