-- Changes a course; answers it as its detail does. Its slug stays.
-- What is left out keeps its value; null clears, and is refused where a value must be. Tags and weekly
-- prices, when given, replace those there are: what stays keeps its id. A sponsored course is never featured.
-- @route PUT /api/admin/courses/:id
-- @path id text max=36
-- @body title text required trim min=1 max=100
-- @body categoryId text required max=36
-- @body base_price number min=0
-- @body description text
-- @body duration integer min=0
-- @body level text trim min=1 max=20
-- @body status text trim upper enum=DRAFT|PUBLISHED|ARCHIVED
-- @body institutionId text max=36
-- @body startDate timestamp
-- @body endDate timestamp
-- @body maxStudents integer min=0
-- @body pricingPeriod text trim upper enum=FULL_COURSE|WEEKLY|MONTHLY
-- @body framework text trim upper enum=CEFR|ACTFL|JLPT|HSK|TOPIK
-- @body isFeatured boolean
-- @body isSponsored boolean
-- @body priority integer min=0
-- @body hasLiveClasses boolean
-- @body liveClassType text
-- @body liveClassFrequency text
-- @body liveClassSchedule json
-- @body isPlatformCourse boolean
-- @body requiresSubscription boolean
-- @body subscriptionTier text
-- @body marketingType text trim upper enum=SELF_PACED|LIVE_ONLINE|IN_PERSON|BLENDED
-- @body marketingDescription text
-- @body tags json[] {id text required max=36} max=100
-- @body weeklyPrices json[] {weekNumber integer required min=1 max=53, year integer required min=2000 max=2100, price number required min=0} max=520
WITH changed AS (
    UPDATE course SET (
        title, description, duration, level, status, "institutionId", "categoryId", "startDate", "endDate", "maxStudents",
        base_price, "pricingPeriod", framework, "isSponsored", priority, "hasLiveClasses", "liveClassType",
        "liveClassFrequency", "liveClassSchedule", "isPlatformCourse", "requiresSubscription", "subscriptionTier",
        "marketingType", "marketingDescription", "isFeatured", "updatedAt") = (SELECT
        n.title, n.description, n.duration, n.level, n.status, n."institutionId", n."categoryId", n."startDate", n."endDate",
        n."maxStudents", n.base_price, n."pricingPeriod", n.framework, n."isSponsored", n.priority, n."hasLiveClasses",
        n."liveClassType", n."liveClassFrequency", n."liveClassSchedule", n."isPlatformCourse", n."requiresSubscription",
        n."subscriptionTier", n."marketingType", n."marketingDescription", n."isFeatured" AND NOT n."isSponsored", now()
        FROM jsonb_populate_record(course, :body - ARRAY['tags', 'weeklyPrices']) n)
    WHERE id = :id RETURNING *
), tags AS MATERIALIZED (
    SELECT ct.* FROM changed, replace_course_tags(
        changed.id, CASE WHEN :body ? 'tags' THEN ARRAY(SELECT tag ->> 'id' FROM jsonb_array_elements(:tags) tag) END) ct
), prices AS MATERIALIZED (
    SELECT w.* FROM changed, replace_weekly_prices(
        changed.id, CASE WHEN :body ? 'weeklyPrices' THEN coalesce(:weeklyPrices, '[]') END) w
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'course', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT row_to_json(item) FROM (
    SELECT c.*,
           (SELECT json_build_object('id', i.id, 'name', i.name, 'country', i.country, 'city', i.city,
                                     'commissionRate', i."commissionRate")
              FROM institution i WHERE i.id = c."institutionId") AS institution,
           (SELECT json_build_object('id', g.id, 'name', g.name, 'description', g.description)
              FROM category g WHERE g.id = c."categoryId") AS category,
           (SELECT coalesce(json_agg(json_build_object('id', ct.id, 'tag',
                                json_build_object('id', t.id, 'name', t.name, 'color', t.color, 'icon', t.icon))
                            ORDER BY t.name, t.id), '[]')
              FROM tags ct JOIN tag t ON t.id = ct."tagId") AS "courseTags",
           (SELECT coalesce(json_agg(w ORDER BY w.year, w."weekNumber"), '[]') FROM prices w) AS "courseWeeklyPrices",
           (SELECT coalesce(json_agg(r ORDER BY r."createdAt", r.id), '[]')
              FROM course_pricing_rules r WHERE r."courseId" = c.id) AS "coursePricingRules",
           json_build_object(
               'studentCourseEnrollments', (SELECT coalesce(sum(e.n), 0) FROM course_enrollment_counts e WHERE e."courseId" = c.id),
               'studentCourseCompletions', (SELECT coalesce(sum(d.n), 0) FROM course_completion_counts d WHERE d."courseId" = c.id),
               'courseTags', (SELECT count(*) FROM tags),
               'courseWeeklyPrices', (SELECT count(*) FROM prices),
               'coursePricingRules', (SELECT count(*) FROM course_pricing_rules r WHERE r."courseId" = c.id)) AS _count
    FROM changed c
) item
