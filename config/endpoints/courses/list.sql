-- A page of courses, newest first, each as in its detail, with filters and text search.
-- The page's ids come first, from one index per sort order; then only these courses are put together.
-- Without filters the total is a maintained one; the others are counted, from an index or from the
-- matches of the search. A term of three letters or more is looked up by trigrams, another by its
-- letters and their pairs (grams).
-- @route GET /api/admin/courses
-- @query institutionId text max=36
-- @query search text trim max=100
-- @query categoryId text max=36
-- @query status text trim upper enum=DRAFT|PUBLISHED|ARCHIVED
-- @query level text trim max=20
-- @query sort text enum=createdAt|-createdAt|title|-title|base_price|-base_price|priority|-priority default=-createdAt
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=10
-- @cache ttl=10m tags=courses
WITH term AS MATERIALIZED (
    SELECT lower(:search) AS folded, :search ~ '[[:alnum:]]{3}' AS trigrams,
           term_grams(lower(:search)) AS grams, length(lower(:search)) <= 2 AS exact,
           '%' || replace(replace(replace(lower(:search), '\', '\\'), '%', '\%'), '_', '\_') || '%' AS pattern
), hit AS MATERIALIZED (
    SELECT "courseId" AS id FROM course_search
    WHERE :institutionId IS NULL AND (SELECT trigrams FROM term) AND text LIKE (SELECT pattern FROM term)
    UNION ALL
    SELECT "courseId" FROM course_search
    WHERE :institutionId IS NULL AND NOT (SELECT trigrams FROM term) AND grams(text) @> (SELECT grams FROM term)
      AND ((SELECT exact FROM term) OR strpos(text, (SELECT folded FROM term)) > 0)
), way AS MATERIALIZED (
    -- Along the order's index, or by sorting a small set: an institution's courses or a search's few hits.
    SELECT CASE WHEN :institutionId IS NOT NULL THEN 'institution'
                WHEN :search IS NOT NULL AND (SELECT count(*) FROM hit) <= 1000 THEN 'hits'
                ELSE 'order' END AS how
), few AS MATERIALIZED (
    SELECT id, "createdAt", title, base_price, priority FROM course
    WHERE "institutionId" = :institutionId
      AND (:search IS NULL OR (SELECT strpos(s.text, (SELECT folded FROM term)) > 0
                               FROM course_search s WHERE s."courseId" = course.id))
      AND (:categoryId IS NULL OR "categoryId" = :categoryId)
      AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
    UNION ALL
    SELECT c.id, c."createdAt", c.title, c.base_price, c.priority
    FROM (SELECT id FROM hit WHERE (SELECT how FROM way) = 'hits' LIMIT 1000) h
    CROSS JOIN LATERAL (SELECT * FROM course WHERE course.id = h.id OFFSET 0) c
    WHERE (:categoryId IS NULL OR "categoryId" = :categoryId)
      AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
), page AS MATERIALIZED (
    -- LIMIT 100, the most that :limit may be, tells a generic plan that this is a page and not a tenth of
    -- the table; OFFSET 0, below, has what belongs to it looked up row by row.
    SELECT * FROM (
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM few
        ORDER BY CASE WHEN :sort = '-createdAt' THEN "createdAt" END DESC,
                 CASE WHEN :sort = 'createdAt' THEN "createdAt" END,
                 CASE WHEN :sort = '-title' THEN title END DESC,
                 CASE WHEN :sort = 'title' THEN title END,
                 CASE WHEN :sort = '-base_price' THEN base_price END DESC,
                 CASE WHEN :sort = 'base_price' THEN base_price END,
                 CASE WHEN :sort = '-priority' THEN priority END DESC,
                 CASE WHEN :sort = 'priority' THEN priority END,
                 CASE WHEN :sort LIKE '-%' THEN id END DESC, id
        LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = '-createdAt' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = 'createdAt' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY "createdAt", id LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = '-title' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY title DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = 'title' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY title, id LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = '-base_price' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY base_price DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = 'base_price' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY base_price, id LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = '-priority' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY priority DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    UNION ALL
    (SELECT id, row_number() OVER () AS n FROM (
        SELECT id FROM course
        WHERE :sort = 'priority' AND (SELECT how FROM way) = 'order'
          AND (:categoryId IS NULL OR "categoryId" = :categoryId)
          AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level)
          AND (:search IS NULL OR id IN (SELECT id FROM hit))
        ORDER BY priority, id LIMIT :limit OFFSET (:page::bigint - 1) * :limit) sorted)
    ) p LIMIT 100
), total AS MATERIALIZED (
    SELECT CASE
        WHEN (SELECT how FROM way) <> 'order' THEN (SELECT count(*) FROM few)
        WHEN :search IS NOT NULL AND :categoryId IS NULL AND :status IS NULL AND :level IS NULL THEN (SELECT count(*) FROM hit)
        WHEN :search IS NOT NULL THEN
            -- IS TRUE keeps it a look into one hash of the many hits, where a join would look up each course.
            (SELECT count(*) FROM course WHERE (id IN (SELECT id FROM hit)) IS TRUE AND (:categoryId IS NULL OR "categoryId" = :categoryId)
                AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level))
        WHEN :categoryId IS NOT NULL THEN
            (SELECT count(*) FROM course WHERE "categoryId" = :categoryId
                AND (:status IS NULL OR status = :status) AND (:level IS NULL OR level = :level))
        WHEN :level IS NOT NULL THEN
            (SELECT count(*) FROM course WHERE level = :level AND (:status IS NULL OR status = :status))
        ELSE (SELECT coalesce(sum(n), 0)::bigint FROM table_counts
              WHERE name = 'course' AND (:status IS NULL OR status = :status))
    END AS n
), item AS (
    SELECT page.n, item.json FROM page CROSS JOIN LATERAL (SELECT row_to_json(course) AS json FROM (
        SELECT c.*,
               (SELECT json_build_object('id', i.id, 'name', i.name, 'country', i.country, 'city', i.city,
                                         'commissionRate', i."commissionRate")
                  FROM institution i WHERE i.id = c."institutionId") AS institution,
               (SELECT json_build_object('id', g.id, 'name', g.name, 'description', g.description)
                  FROM category g WHERE g.id = c."categoryId") AS category,
               tags.list AS "courseTags",
               prices.list AS "courseWeeklyPrices",
               rules.list AS "coursePricingRules",
               json_build_object(
                   'studentCourseEnrollments', (SELECT coalesce(sum(e.n), 0) FROM course_enrollment_counts e WHERE e."courseId" = c.id),
                   'studentCourseCompletions', (SELECT coalesce(sum(d.n), 0) FROM course_completion_counts d WHERE d."courseId" = c.id),
                   'courseTags', tags.n,
                   'courseWeeklyPrices', prices.n,
                   'coursePricingRules', rules.n) AS _count
        FROM course c
        CROSS JOIN LATERAL (
            SELECT count(*) AS n,
                   coalesce(json_agg(json_build_object('id', ct.id, 'tag',
                                json_build_object('id', t.id, 'name', t.name, 'color', t.color, 'icon', t.icon))
                            ORDER BY t.name, t.id), '[]') AS list
            FROM coursetag ct JOIN tag t ON t.id = ct."tagId" WHERE ct."courseId" = c.id) tags
        CROSS JOIN LATERAL (
            SELECT count(*) AS n, coalesce(json_agg(w ORDER BY w.year, w."weekNumber"), '[]') AS list
            FROM course_weekly_prices w WHERE w."courseId" = c.id) prices
        CROSS JOIN LATERAL (
            SELECT count(*) AS n, coalesce(json_agg(r ORDER BY r."createdAt", r.id), '[]') AS list
            FROM course_pricing_rules r WHERE r."courseId" = c.id) rules
        WHERE c.id = page.id
    ) course OFFSET 0) item
)
SELECT json_build_object(
    'courses', (SELECT coalesce(json_agg(json ORDER BY n), '[]') FROM item),
    'pagination', (SELECT json_build_object('total', n, 'page', :page, 'limit', :limit,
                                            'totalPages', (n + :limit - 1) / :limit) FROM total))
