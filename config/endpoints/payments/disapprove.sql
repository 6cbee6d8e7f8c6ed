-- Refuses a payment that waits for a decision: it is FAILED, the reason in its metadata. Answers the payment as
-- the list does. All administrators are told.
-- @route POST /api/admin/payments/disapprove/:paymentId
-- @path paymentId text max=36
-- @body reason text trim max=2000
-- @status 200
WITH failed AS (
    UPDATE payments SET
        status = 'FAILED',
        metadata = CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END
            || jsonb_strip_nulls(jsonb_build_object('reason', :reason)),
        "updatedAt" = now()
    WHERE id = :paymentId AND status IN ('PENDING', 'PROCESSING', 'INITIATED') RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'DISAPPROVE', 'payment', id, jsonb_build_object(
        'amount', amount, 'enrollmentId', "enrollmentId", 'reason', :reason), 'INFO', 'ADMIN' FROM failed
), told AS MATERIALIZED (
    SELECT provost.publish('role:ADMIN', 'payment.disapproved', jsonb_build_object(
        'id', id, 'status', status, 'amount', amount, 'currency', currency, 'reason', :reason,
        'institutionId', "institutionId", 'enrollmentId', "enrollmentId", 'decidedBy', :auth_sub)) FROM failed
), refused AS MATERIALIZED (
    -- It is there, and was not changed: decided before, perhaps while this statement waited for it.
    SELECT provost.fail(409, 'The payment does not wait for a decision.')
    FROM payments WHERE id = :paymentId AND NOT EXISTS (SELECT FROM failed)
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
FROM failed p LEFT JOIN student_course_enrollments e ON e.id = p."enrollmentId"
WHERE NOT EXISTS (SELECT FROM refused) AND EXISTS (SELECT FROM told)
