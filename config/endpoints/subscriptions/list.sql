-- Institutions' subscriptions by institution name, with what each has brought in.
-- revenueGenerated is the institution's COMPLETED payments; activeStudents the places taken on its
-- courses (enrolments ENROLLED, ACTIVE or IN_PROGRESS: who is on two courses counts twice). All three
-- are read from maintained totals.
-- @route GET /api/admin/subscriptions
-- @query status text trim upper max=20
-- @cache ttl=10m tags=subscriptions
WITH chosen AS MATERIALIZED (
    SELECT * FROM institution_subscriptions WHERE :status IS NULL OR upper(status) = :status
), revenue AS MATERIALIZED (
    SELECT "institutionId", sum(amount) AS amount FROM revenue_sums WHERE span = 'year' GROUP BY 1
), counts AS MATERIALIZED (
    SELECT "institutionId", sum(n) FILTER (WHERE name = 'courses') AS courses, sum(n) FILTER (WHERE name = 'places') AS places
    FROM institution_counts GROUP BY 1
)
SELECT coalesce(json_agg(item.json ORDER BY item.name, item.id), '[]') FROM (
    SELECT i.name, s.id, (SELECT row_to_json(subscription) FROM (
        SELECT s.*,
               json_build_object('id', i.id, 'name', i.name) AS institution,
               json_build_object('planType', t."planType", 'name', t.name, 'price', t.price, 'commissionRate', t."commissionRate")
                   AS "commissionTier",
               coalesce(r.amount, 0) AS "revenueGenerated",
               coalesce(c.places, 0) AS "activeStudents",
               coalesce(c.courses, 0) AS "totalCourses") subscription) AS json
    FROM chosen s
    JOIN institution i ON i.id = s."institutionId"
    JOIN commission_tiers t ON t.id = s."commissionTierId"
    LEFT JOIN revenue r ON r."institutionId" = s."institutionId"
    LEFT JOIN counts c ON c."institutionId" = s."institutionId"
) item
