-- Institutions by name, each with the number of its users and courses.
-- Institutions are few enough to be searched (name, city, country, email) and sorted whole; counts are
-- made for the page's own, from an index.
-- @route GET /api/admin/institutions
-- @query search text trim max=100
-- @query status text trim upper max=20
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=500 default=200
-- @cache ttl=10m tags=institutions
WITH term AS MATERIALIZED (
    SELECT '%' || replace(replace(replace(:search, '\', '\\'), '%', '\%'), '_', '\_') || '%' AS pattern
), page AS MATERIALIZED (
    SELECT * FROM institution
    WHERE (:status IS NULL OR upper(status) = :status)
      AND (:search IS NULL OR name ILIKE (SELECT pattern FROM term) OR city ILIKE (SELECT pattern FROM term)
           OR country ILIKE (SELECT pattern FROM term) OR email ILIKE (SELECT pattern FROM term))
    ORDER BY name, id LIMIT :limit OFFSET (:page::bigint - 1) * :limit
)
SELECT coalesce(json_agg(item ORDER BY item.name, item.id), '[]') FROM (
    SELECT i.*,
           json_build_object(
               'users', (SELECT count(*) FROM "user" u WHERE u."institutionId" = i.id),
               'courses', (SELECT count(*) FROM course c WHERE c."institutionId" = i.id)) AS _count
    FROM page i
) item
