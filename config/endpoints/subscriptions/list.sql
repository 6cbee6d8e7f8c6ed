-- Institutions' subscriptions by institution name, with what each has brought in.
-- revenueGenerated is the institution's COMPLETED payments; activeStudents the places taken on its
-- courses (enrolments ENROLLED, ACTIVE or IN_PROGRESS: who is on two courses counts twice). Both are
-- read from maintained totals.
-- @route GET /api/admin/subscriptions
-- @query status text trim upper max=20
-- @cache ttl=10m tags=subscriptions
WITH chosen AS MATERIALIZED (
    SELECT * FROM institution_subscriptions WHERE :status IS NULL OR upper(status) = :status
), revenue AS MATERIALIZED (
    SELECT "institutionId", sum(amount) AS amount FROM payment_months GROUP BY 1
), places AS MATERIALIZED (
    SELECT c."institutionId", sum(e.n) AS n
    FROM course_enrollment_counts e JOIN course c ON c.id = e."courseId"
    WHERE e.status IN ('ENROLLED', 'ACTIVE', 'IN_PROGRESS') AND c."institutionId" IS NOT NULL
    GROUP BY 1
)
SELECT coalesce(json_agg(item ORDER BY item.institution ->> 'name', item.id), '[]') FROM (
    SELECT s.*,
           json_build_object('id', i.id, 'name', i.name) AS institution,
           json_build_object('planType', t."planType", 'name', t.name, 'price', t.price, 'commissionRate', t."commissionRate")
               AS "commissionTier",
           coalesce(r.amount, 0) AS "revenueGenerated",
           coalesce(p.n, 0) AS "activeStudents",
           (SELECT count(*) FROM course c WHERE c."institutionId" = s."institutionId") AS "totalCourses"
    FROM chosen s
    JOIN institution i ON i.id = s."institutionId"
    JOIN commission_tiers t ON t.id = s."commissionTierId"
    LEFT JOIN revenue r ON r."institutionId" = s."institutionId"
    LEFT JOIN places p ON p."institutionId" = s."institutionId"
) item
