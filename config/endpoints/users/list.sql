-- A page of users, newest first, each with its institution; never a password.
-- A search (name or email) looks among the newest first. Only a term too rare to fill the page from
-- those is looked up by trigrams, or, without three letters in a row, by its letters and their pairs (grams).
-- @route GET /api/admin/users
-- @query role text trim upper enum=ADMIN|INSTITUTION|INSTITUTION_STAFF|INSTRUCTOR|STUDENT
-- @query institutionId text max=36
-- @query search text trim max=100
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=50
-- @cache ttl=5m tags=users
WITH term AS MATERIALIZED (
    SELECT :search ~ '[[:alnum:]]{3}' AS trigrams,
           term_grams(lower(:search)) AS grams, length(lower(:search)) <= 2 AS exact,
           '%' || replace(replace(replace(:search, '\', '\\'), '%', '\%'), '_', '\_') || '%' AS pattern
), newest AS MATERIALIZED (
    SELECT u.id, u."createdAt" FROM (
        (SELECT * FROM "user" WHERE :search IS NOT NULL AND :role IS NULL AND :institutionId IS NULL
         ORDER BY "createdAt" DESC, id DESC LIMIT 1000)
        UNION ALL
        (SELECT * FROM "user" WHERE :search IS NOT NULL AND role = :role AND :institutionId IS NULL
         ORDER BY "createdAt" DESC, id DESC LIMIT 1000)
    ) u
    WHERE u.name || E'\n' || u.email ILIKE (SELECT pattern FROM term)
), enough AS MATERIALIZED (
    SELECT count(*) >= :page::bigint * :limit AS yes FROM newest
), matched AS MATERIALIZED (
    SELECT id, "createdAt" FROM newest WHERE (SELECT yes FROM enough)
    UNION ALL
    SELECT id, "createdAt" FROM "user"
    WHERE :search IS NOT NULL AND "institutionId" = :institutionId AND (:role IS NULL OR role = :role)
      AND name || E'\n' || email ILIKE (SELECT pattern FROM term)
    UNION ALL
    SELECT id, "createdAt" FROM "user"
    WHERE :institutionId IS NULL AND (SELECT trigrams FROM term) AND NOT (SELECT yes FROM enough)
      AND (name ILIKE (SELECT pattern FROM term) OR email ILIKE (SELECT pattern FROM term))
      AND (:role IS NULL OR role = :role)
    UNION ALL
    SELECT id, "createdAt" FROM "user"
    WHERE :institutionId IS NULL AND NOT (SELECT trigrams FROM term) AND NOT (SELECT yes FROM enough)
      AND grams(lower(name || E'\n' || email)) @> (SELECT grams FROM term)
      AND ((SELECT exact FROM term) OR name || E'\n' || email ILIKE (SELECT pattern FROM term))
      AND (:role IS NULL OR role = :role)
), slice AS MATERIALIZED (
    -- The number of all users is known, so that a page past their middle can be reached from the end.
    SELECT past * 2 > n AS backward,
           greatest(n - past - :limit, 0) AS before, greatest(least(n - past, :limit), 0) AS take
    FROM (SELECT coalesce(sum(n), 0)::bigint AS n, (:page::bigint - 1) * :limit AS past
          FROM table_counts WHERE name = 'user') s
), page AS MATERIALIZED (
    -- LIMIT 100, the most that :limit may be, tells a generic plan that this is a page and not a tenth of
    -- the table; OFFSET 0, below, has what belongs to it looked up row by row.
    SELECT * FROM (
    (SELECT id, "createdAt" FROM matched WHERE :search IS NOT NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM "user"
     WHERE (SELECT NOT backward FROM slice) AND :search IS NULL AND :role IS NULL AND :institutionId IS NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM "user"
     WHERE (SELECT backward FROM slice) AND :search IS NULL AND :role IS NULL AND :institutionId IS NULL
     ORDER BY "createdAt", id LIMIT (SELECT take FROM slice) OFFSET (SELECT before FROM slice))
    UNION ALL
    (SELECT id, "createdAt" FROM "user" WHERE :search IS NULL AND role = :role AND :institutionId IS NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM "user"
     WHERE :search IS NULL AND "institutionId" = :institutionId AND (:role IS NULL OR role = :role)
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    ) p LIMIT 100
)
SELECT json_build_object('users', coalesce(json_agg(item.json ORDER BY page."createdAt" DESC, page.id DESC), '[]'))
FROM page CROSS JOIN LATERAL (
    SELECT json_build_object(
        'id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'institutionId', u."institutionId", 'status', u.status,
        'image', u.image, 'emailVerified', u."emailVerified", 'lastLoginAt', u."lastLoginAt",
        'createdAt', u."createdAt", 'updatedAt', u."updatedAt",
        'institution', (SELECT json_build_object('id', i.id, 'name', i.name) FROM institution i WHERE i.id = u."institutionId")) AS json
    FROM "user" u WHERE u.id = page.id OFFSET 0) item
