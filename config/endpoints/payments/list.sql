-- A page of payments, newest first, with whom and what they paid for.
-- What is gone (enrolment, student, course, institution) is null. Amounts are as stored.
-- @route GET /api/admin/payments
-- @query status text trim upper enum=PENDING|PROCESSING|INITIATED|COMPLETED|PAID|FAILED|REFUNDED
-- @query institutionId text max=36
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=50
-- @cache ttl=10m tags=payments
WITH page AS MATERIALIZED (
    -- LIMIT 100, the most that :limit may be, tells a generic plan that this is a page and not a tenth of
    -- the table; OFFSET 0, below, has what belongs to it looked up row by row.
    SELECT * FROM (
    (SELECT id, "createdAt" FROM payments WHERE :status IS NULL AND :institutionId IS NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM payments WHERE status = :status AND :institutionId IS NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM payments WHERE :status IS NULL AND "institutionId" = :institutionId
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM payments WHERE status = :status AND "institutionId" = :institutionId
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    ) p LIMIT 100
)
SELECT coalesce(json_agg(item.json ORDER BY page."createdAt" DESC, page.id DESC), '[]')
FROM page CROSS JOIN LATERAL (
    SELECT json_build_object(
        'id', p.id, 'amount', p.amount, 'status', p.status, 'paymentMethod', p."paymentMethod",
        'referenceNumber', p."referenceNumber", 'paidAt', p."paidAt", 'createdAt', p."createdAt",
        'commissionAmount', p."commissionAmount", 'institutionAmount', p."institutionAmount",
        'student', (SELECT json_build_object('id', s.id, 'name', s.name, 'email', s.email)
                      FROM students s WHERE s.id = e."studentId"),
        'course', (SELECT json_build_object('id', c.id, 'title', c.title, 'slug', c.slug, 'status', c.status, 'base_price', c.base_price)
                     FROM course c WHERE c.id = e."courseId"),
        'institution', (SELECT json_build_object('id', i.id, 'name', i.name, 'commissionRate', i."commissionRate")
                          FROM institution i WHERE i.id = p."institutionId"),
        'enrollment', CASE WHEN e.id IS NOT NULL THEN json_build_object(
            'id', e.id, 'status', e.status, 'paymentStatus', e."paymentStatus", 'progress', e.progress,
            'startDate', e."startDate", 'endDate', e."endDate", 'createdAt', e."createdAt") END) AS json
    FROM payments p LEFT JOIN student_course_enrollments e ON e.id = p."enrollmentId"
    WHERE p.id = page.id OFFSET 0) item
