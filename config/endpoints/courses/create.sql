-- Creates a course with its tags and weekly prices; answers it as its detail does.
-- What is left out, or null, has the column's default. A sponsored course is never featured.
-- @route POST /api/admin/courses
-- @body title text required trim min=1 max=100
-- @body categoryId text required max=36
-- @body base_price number required min=0
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
WITH made AS MATERIALIZED (
    SELECT * FROM insert_with_slug(NULL::course, :title, :body - ARRAY['tags', 'weeklyPrices']
        || CASE WHEN :isSponsored THEN jsonb '{"isFeatured": false}' ELSE '{}' END)
), tags AS MATERIALIZED (
    SELECT ct.* FROM made, replace_course_tags(made.id, ARRAY(SELECT tag ->> 'id' FROM jsonb_array_elements(:tags) tag)) ct
), prices AS MATERIALIZED (
    SELECT w.* FROM made, replace_weekly_prices(made.id, :weeklyPrices) w
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'CREATE', 'course', id, :body, 'INFO', 'ADMIN' FROM made
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
           json '[]' AS "coursePricingRules",
           json_build_object(
               'studentCourseEnrollments', 0,
               'studentCourseCompletions', 0,
               'courseTags', (SELECT count(*) FROM tags),
               'courseWeeklyPrices', (SELECT count(*) FROM prices),
               'coursePricingRules', 0) AS _count
    FROM made c
) item
