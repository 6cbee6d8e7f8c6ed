-- Changes the state of a course's enrolment; answers it as the list of enrolments does.
-- The notes are kept with the record of the change.
-- @route PATCH /api/admin/courses/:id/enrollments
-- @path id text max=36
-- @body enrollmentId text required max=36
-- @body status text trim upper enum=PENDING_PAYMENT|ENROLLED|ACTIVE|IN_PROGRESS|COMPLETED|DROPPED|CANCELLED
-- @body paymentStatus text trim upper enum=PENDING|PROCESSING|INITIATED|COMPLETED|PAID|FAILED|REFUNDED
-- @body notes text trim max=2000
WITH changed AS (
    UPDATE student_course_enrollments SET
        status = CASE WHEN :body ? 'status' THEN :status ELSE status END,
        "paymentStatus" = CASE WHEN :body ? 'paymentStatus' THEN :paymentStatus ELSE "paymentStatus" END,
        version = version + 1, "updatedAt" = now()
    WHERE id = :enrollmentId AND "courseId" = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'enrollment', id, (:body - 'enrollmentId') || jsonb_build_object('courseId', "courseId"),
           'INFO', 'ADMIN' FROM changed
)
SELECT row_to_json(enrollment) FROM (
    SELECT e.*,
           (SELECT json_build_object('id', s.id, 'name', s.name, 'email', s.email, 'phone', s.phone, 'status', s.status,
                                     'created_at', s.created_at, 'last_active', s.last_active)
              FROM students s WHERE s.id = e."studentId") AS student,
           paid.list AS payments,
           paid.total AS "totalPaid",
           paid.list -> 0 AS "latestPayment",
           floor(extract(epoch FROM now() - e."createdAt") / 86400)::int AS "daysSinceEnrollment"
    FROM changed e
    CROSS JOIN LATERAL (
        SELECT coalesce(json_agg(p ORDER BY p."createdAt" DESC, p.id DESC), '[]') AS list,
               coalesce(sum(p.amount::numeric) FILTER (WHERE p.status IN ('COMPLETED', 'PAID')), 0) AS total
        FROM payments p WHERE p."enrollmentId" = e.id) paid
) enrollment
