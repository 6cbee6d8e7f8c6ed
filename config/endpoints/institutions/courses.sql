-- All courses of an institution, newest first, each with its category and counts.
-- The counts of enrolments and completions are read from maintained totals.
-- @route GET /api/admin/institutions/:id/courses
-- @path id text max=36
-- @cache ttl=10m tags=institutions,courses
-- @depends institution(id=:id), course(institutionId=:id)
SELECT coalesce((SELECT json_agg(item ORDER BY item."createdAt" DESC, item.id DESC) FROM (
    SELECT c.*,
           (SELECT json_build_object('id', g.id, 'name', g.name, 'description', g.description)
              FROM category g WHERE g.id = c."categoryId") AS category,
           json_build_object(
               'studentCourseEnrollments', (SELECT coalesce(sum(e.n), 0) FROM course_enrollment_counts e WHERE e."courseId" = c.id),
               'studentCourseCompletions', (SELECT coalesce(sum(d.n), 0) FROM course_completion_counts d WHERE d."courseId" = c.id),
               'courseTags', (SELECT count(*) FROM coursetag t WHERE t."courseId" = c.id),
               'courseWeeklyPrices', (SELECT count(*) FROM course_weekly_prices w WHERE w."courseId" = c.id),
               'coursePricingRules', (SELECT count(*) FROM course_pricing_rules r WHERE r."courseId" = c.id)) AS _count
    FROM course c
    WHERE c."institutionId" = :id
) item), '[]')
FROM institution WHERE id = :id
