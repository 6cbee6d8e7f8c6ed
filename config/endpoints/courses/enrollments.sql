-- A page of a course's enrolments, newest first, each with its student and payments, and the course.
-- The total comes from maintained counts, with a search from the matches. A course may have hundreds
-- of thousands of enrolments: there a search for a term that many students match stops three pages
-- further on, and total then says how many it had found; it is exact in every other case.
-- @route GET /api/admin/courses/:id/enrollments
-- @path id text max=36
-- @query status text trim upper enum=PENDING_PAYMENT|ENROLLED|ACTIVE|IN_PROGRESS|COMPLETED|DROPPED|CANCELLED
-- @query paymentStatus text trim upper enum=PENDING|PROCESSING|INITIATED|COMPLETED|PAID|FAILED|REFUNDED
-- @query search text trim max=100
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=50
-- @cache ttl=10m tags=courses
-- @depends course(id=:id), course_enrollment_counts(courseId=:id), student_course_enrollments(courseId=:id)
WITH size AS MATERIALIZED (
    SELECT coalesce(sum(n), 0)::bigint AS n FROM course_enrollment_counts
    WHERE "courseId" = :id AND (:status IS NULL OR status = :status)
      AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
), term AS MATERIALIZED (
    SELECT :search ~ '[[:alnum:]]{3}' AS trigrams,
           term_grams(lower(:search)) AS grams, length(lower(:search)) <= 2 AS exact,
           '%' || replace(replace(replace(:search, '\', '\\'), '%', '\%'), '_', '\_') || '%' AS pattern
), way AS MATERIALIZED (
    -- How to search. Along the course's enrolments where those are few; or where the term is so frequent
    -- among the newest thousand that `enough` matches come sooner that way than from all students.
    SELECT size.n <= 3000 OR f.n * f.n * size.n >= enough.n * 1000000 AS along,
           CASE WHEN size.n > 3000 THEN enough.n END AS enough
    FROM size
    CROSS JOIN (SELECT (:page::bigint + 3) * :limit + 1 AS n) enough
    CROSS JOIN LATERAL (
        SELECT count(*) AS n
        FROM (SELECT "studentId" FROM student_course_enrollments WHERE size.n > 3000 AND "courseId" = :id
              ORDER BY "createdAt" DESC, id DESC LIMIT 1000) e
        JOIN LATERAL (SELECT FROM students s WHERE s.id = e."studentId"
                      AND s.name || E'\n' || s.email ILIKE (SELECT pattern FROM term) OFFSET 0) s ON true) f
    WHERE :search IS NOT NULL
), learner AS MATERIALIZED (
    SELECT id FROM students
    WHERE (SELECT NOT along FROM way) AND (SELECT trigrams FROM term)
      AND (name ILIKE (SELECT pattern FROM term) OR email ILIKE (SELECT pattern FROM term))
    UNION ALL
    SELECT id FROM students
    WHERE (SELECT NOT along FROM way) AND (SELECT NOT trigrams FROM term)
      AND grams(lower(name || E'\n' || email)) @> (SELECT grams FROM term)
      AND ((SELECT exact FROM term) OR name || E'\n' || email ILIKE (SELECT pattern FROM term))
), matched AS MATERIALIZED (
    (SELECT e.id, e."createdAt" FROM student_course_enrollments e
     JOIN LATERAL (SELECT FROM students s WHERE s.id = e."studentId"
                   AND s.name || E'\n' || s.email ILIKE (SELECT pattern FROM term) OFFSET 0) s ON true
     WHERE (SELECT along FROM way) AND :status IS NULL AND "courseId" = :id
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY e."createdAt" DESC, e.id DESC LIMIT (SELECT enough FROM way))
    UNION ALL
    (SELECT e.id, e."createdAt" FROM student_course_enrollments e
     JOIN LATERAL (SELECT FROM students s WHERE s.id = e."studentId"
                   AND s.name || E'\n' || s.email ILIKE (SELECT pattern FROM term) OFFSET 0) s ON true
     WHERE (SELECT along FROM way) AND "courseId" = :id AND status = :status
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY e."createdAt" DESC, e.id DESC LIMIT (SELECT enough FROM way))
    UNION ALL
    SELECT e.id, e."createdAt" FROM learner CROSS JOIN LATERAL (
        SELECT * FROM student_course_enrollments e
        WHERE e."studentId" = learner.id AND e."courseId" = :id AND (:status IS NULL OR e.status = :status)
          AND (:paymentStatus IS NULL OR e."paymentStatus" = :paymentStatus) OFFSET 0) e
), slice AS MATERIALIZED (
    -- Without a search the total is exact, so that a page past the middle can be reached from the end.
    SELECT past * 2 > n AS backward, past,
           greatest(n - past - :limit, 0) AS before, greatest(least(n - past, :limit), 0) AS take
    FROM (SELECT n, (:page::bigint - 1) * :limit AS past FROM size WHERE :search IS NULL) s
), page AS MATERIALIZED (
    -- LIMIT 100, the most that :limit may be, tells a generic plan that this is a page and not a tenth of
    -- the table; OFFSET 0, below, has what belongs to it looked up row by row.
    SELECT * FROM (
    (SELECT id, "createdAt" FROM student_course_enrollments
     WHERE (SELECT NOT backward AND take > 0 FROM slice) AND :status IS NULL AND "courseId" = :id
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (SELECT past FROM slice))
    UNION ALL
    (SELECT id, "createdAt" FROM student_course_enrollments
     WHERE (SELECT NOT backward AND take > 0 FROM slice) AND "courseId" = :id AND status = :status
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (SELECT past FROM slice))
    UNION ALL
    (SELECT id, "createdAt" FROM student_course_enrollments
     WHERE (SELECT backward FROM slice) AND :status IS NULL AND "courseId" = :id
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY "createdAt", id LIMIT (SELECT take FROM slice) OFFSET (SELECT before FROM slice))
    UNION ALL
    (SELECT id, "createdAt" FROM student_course_enrollments
     WHERE (SELECT backward FROM slice) AND "courseId" = :id AND status = :status
       AND (:paymentStatus IS NULL OR "paymentStatus" = :paymentStatus)
     ORDER BY "createdAt", id LIMIT (SELECT take FROM slice) OFFSET (SELECT before FROM slice))
    UNION ALL
    (SELECT id, "createdAt" FROM matched WHERE :search IS NOT NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    ) p LIMIT 100
), item AS (
    SELECT page."createdAt", page.id, item.json FROM page CROSS JOIN LATERAL (SELECT row_to_json(enrollment) AS json FROM (
        SELECT e.*,
               (SELECT json_build_object('id', s.id, 'name', s.name, 'email', s.email, 'phone', s.phone, 'status', s.status,
                                         'created_at', s.created_at, 'last_active', s.last_active)
                  FROM students s WHERE s.id = e."studentId") AS student,
               paid.list AS payments,
               paid.total AS "totalPaid",
               paid.list -> 0 AS "latestPayment",
               floor(extract(epoch FROM now() - e."createdAt") / 86400)::int AS "daysSinceEnrollment"
        FROM student_course_enrollments e
        CROSS JOIN LATERAL (
            SELECT coalesce(json_agg(p ORDER BY p."createdAt" DESC, p.id DESC), '[]') AS list,
                   coalesce(sum(p.amount::numeric) FILTER (WHERE p.status IN ('COMPLETED', 'PAID')), 0) AS total
            FROM payments p WHERE p."enrollmentId" = e.id) paid
        WHERE e.id = page.id
    ) enrollment OFFSET 0) item
)
SELECT json_build_object(
    'enrollments', (SELECT coalesce(json_agg(json ORDER BY "createdAt" DESC, id DESC), '[]') FROM item),
    'course', json_build_object(
        'id', c.id, 'title', c.title, 'slug', c.slug, 'status', c.status, 'level', c.level, 'duration', c.duration,
        'base_price', c.base_price, 'pricingPeriod', c."pricingPeriod", 'maxStudents', c."maxStudents",
        'startDate', c."startDate", 'endDate', c."endDate",
        'institution', (SELECT json_build_object('id', i.id, 'name', i.name) FROM institution i WHERE i.id = c."institutionId"),
        'category', (SELECT json_build_object('id', g.id, 'name', g.name) FROM category g WHERE g.id = c."categoryId")),
    'pagination', (SELECT json_build_object('total', t.n, 'page', :page, 'limit', :limit, 'totalPages', (t.n + :limit - 1) / :limit)
                   FROM (SELECT CASE WHEN :search IS NULL THEN (SELECT n FROM size) ELSE (SELECT count(*) FROM matched) END AS n) t))
FROM course c WHERE c.id = :id
