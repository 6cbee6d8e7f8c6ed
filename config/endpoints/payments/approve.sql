-- Approves a payment that waits for a decision: it is COMPLETED, its enrolment ENROLLED and PAID, the booking
-- it names COMPLETED. Answers the payment as the list does. The commission is by the institution's rate;
-- of the platform's own courses, and institutions that are gone, there is none. All administrators are told.
-- @route POST /api/admin/payments/approve/:paymentId
-- @path paymentId text max=36
-- @status 200
WITH approved AS (
    UPDATE payments p SET (status, "paidAt", "commissionAmount", "institutionAmount", "updatedAt") = (
        SELECT 'COMPLETED', now(), commission, p.amount::numeric - commission, now()
        FROM (SELECT coalesce(round(p.amount::numeric * (
            SELECT i."commissionRate"::numeric FROM institution i
            WHERE i.id = p."institutionId" AND NOT EXISTS (
                SELECT FROM student_course_enrollments e JOIN course c ON c.id = e."courseId"
                WHERE e.id = p."enrollmentId" AND c."institutionId" IS NULL)) / 100, 2), 0) AS commission) fee)
    WHERE id = :paymentId AND status IN ('PENDING', 'PROCESSING', 'INITIATED') RETURNING *
), enrolled AS (
    UPDATE student_course_enrollments e SET
        status = 'ENROLLED', "paymentStatus" = 'PAID', "paymentDate" = now(), version = version + 1, "updatedAt" = now()
    FROM approved WHERE e.id = approved."enrollmentId" RETURNING e.*
), booked AS (
    UPDATE booking b SET status = 'COMPLETED', "updatedAt" = now()
    FROM approved WHERE b.id = approved.metadata ->> 'bookingId'
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'APPROVE', 'payment', id, jsonb_build_object(
        'amount', amount, 'commissionAmount', "commissionAmount", 'institutionAmount', "institutionAmount",
        'enrollmentId', "enrollmentId", 'bookingId', metadata ->> 'bookingId'), 'INFO', 'ADMIN' FROM approved
), told AS MATERIALIZED (
    SELECT provost.publish('role:ADMIN', 'payment.approved', jsonb_build_object(
        'id', id, 'status', status, 'amount', amount, 'currency', currency, 'paidAt', "paidAt",
        'commissionAmount', "commissionAmount", 'institutionAmount', "institutionAmount",
        'institutionId', "institutionId", 'enrollmentId', "enrollmentId", 'decidedBy', :auth_sub)) FROM approved
), refused AS MATERIALIZED (
    -- It is there, and was not changed: decided before, perhaps while this statement waited for it.
    SELECT provost.fail(409, 'The payment does not wait for a decision.')
    FROM payments WHERE id = :paymentId AND NOT EXISTS (SELECT FROM approved)
)
SELECT json_build_object('success', true, 'payment', json_build_object(
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
        'startDate', e."startDate", 'endDate', e."endDate", 'createdAt', e."createdAt") END))
FROM approved p LEFT JOIN enrolled e ON e.id = p."enrollmentId"
WHERE NOT EXISTS (SELECT FROM refused) AND EXISTS (SELECT FROM told)
