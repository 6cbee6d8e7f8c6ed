-- One course with its institution, category, tags, weekly prices, pricing rules and counts.
-- The counts of enrolments and completions are read from maintained totals.
-- @route GET /api/admin/courses/:id
-- @path id text max=36
-- @cache ttl=10m tags=courses
-- @depends course(id=:id), coursetag(courseId=:id), course_weekly_prices(courseId=:id)
-- @depends course_pricing_rules(courseId=:id), course_enrollment_counts(courseId=:id)
-- @depends course_completion_counts(courseId=:id)
SELECT row_to_json(item) FROM (
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
    WHERE c.id = :id
) item
