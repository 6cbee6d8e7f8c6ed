-- All tags by name, with the number of courses and children; include=hierarchy nests the children.
-- A tag whose parent is missing, or outside the category asked for, stands at the top; so does the one
-- with the smallest id of tags that are each other's ancestors, whose own parent is then disregarded.
-- The number of courses is read from maintained totals.
-- @route GET /api/admin/tags
-- @query categoryId text max=36
-- @query include text trim lower enum=hierarchy
-- @cache ttl=10m tags=tags
WITH RECURSIVE node AS MATERIALIZED (
    SELECT t.id, t.name, t."parentId",
           left(row_to_json(t)::text, -1) || ',"_count":' || json_build_object(
               'courses', (SELECT coalesce(sum(c.n), 0) FROM tag_course_counts c WHERE c."tagId" = t.id),
               'children', (SELECT count(*) FROM tag k WHERE k."parentId" = t.id)) || '}' AS json
    FROM (SELECT * FROM tag WHERE :categoryId IS NULL OR "categoryId" = :categoryId) t
), root AS MATERIALIZED (
    SELECT id FROM node WHERE :include = 'hierarchy' AND NOT EXISTS (SELECT FROM node p WHERE p.id = node."parentId")
), reached AS (
    SELECT id FROM root
    UNION ALL
    SELECT node.id FROM reached JOIN node ON node."parentId" = reached.id
), climb AS (
    -- From every tag no root leads to, up to where it comes round.
    SELECT id AS start, "parentId" AS at, id AS smallest FROM node
    WHERE :include = 'hierarchy' AND id NOT IN (SELECT id FROM reached)
    UNION ALL
    SELECT start, node."parentId", least(smallest, node.id) FROM climb JOIN node ON node.id = climb.at
    WHERE climb.at <> climb.start
) CYCLE at SET again USING way
, top AS MATERIALIZED (
    SELECT id FROM root
    UNION ALL
    SELECT start FROM climb WHERE at = start AND smallest = start AND NOT again
), sibling AS MATERIALIZED (
    SELECT id, CASE WHEN id NOT IN (SELECT id FROM top) THEN "parentId" END AS parent, json,
           row_number() OVER (PARTITION BY CASE WHEN id NOT IN (SELECT id FROM top) THEN "parentId" END ORDER BY name, id) AS n
    FROM node WHERE :include = 'hierarchy'
), tree AS (
    SELECT id, json, ARRAY[n] AS path FROM sibling WHERE parent IS NULL
    UNION ALL
    SELECT s.id, s.json, tree.path || s.n FROM tree JOIN sibling s ON s.parent = tree.id
), step AS (
    -- In depth-first order the nesting follows from each row's depth and the next one's.
    SELECT json, path, cardinality(path) AS depth, lead(cardinality(path)) OVER (ORDER BY path) AS next FROM tree
)
SELECT CASE WHEN :include = 'hierarchy' THEN
    coalesce((SELECT '[' || string_agg(
        left(json, -1) || ',"children":[' || repeat(']}', depth - coalesce(next, 1) + 1)
        || CASE WHEN next <= depth THEN ',' ELSE '' END, '' ORDER BY path) || ']' FROM step), '[]')::json
ELSE
    coalesce((SELECT json_agg(json::json ORDER BY name, id) FROM node), '[]')
END
