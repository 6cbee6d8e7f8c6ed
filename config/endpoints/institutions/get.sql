-- One institution with the number of its users and courses.
-- @route GET /api/admin/institutions/:id
-- @path id text max=36
-- @cache ttl=10m tags=institutions
-- @depends institution(id=:id), "user"(institutionId=:id), course(institutionId=:id)
SELECT row_to_json(item) FROM (
    SELECT i.*,
           json_build_object(
               'users', (SELECT count(*) FROM "user" u WHERE u."institutionId" = :id),
               'courses', (SELECT count(*) FROM course c WHERE c."institutionId" = :id)) AS _count
    FROM institution i
    WHERE i.id = :id
) item
