-- Revenue of a range of days, as metrics, as a breakdown or as a projection.
-- COMPLETED payments by coalesce(paidAt, createdAt), in UTC, both days inclusive. Whole months of the
-- range are read from maintained totals, the days at its two ends from an index.
-- metrics: growthRate compares with as many days just before. breakdown: byPlan is by the institution's
-- plan (null for the platform itself and institutions that are gone), byTimeframe the twelve whole
-- months up to the one endDate is in. projection: the range's revenue per day, times 30 and 90.
-- @route GET /api/admin/revenue
-- @query startDate date required
-- @query endDate date required
-- @query type text trim lower enum=metrics|breakdown|projection default=metrics
-- @cache ttl=10m tags=revenue
WITH period AS (
    -- The range and the one before it, [first, past); whole months are [month, month_past).
    SELECT p.*, greatest(month, least(past, date_trunc('month', past::timestamp)::date)) AS month_past
    FROM (SELECT *, CASE WHEN date_trunc('month', first::timestamp) = first THEN first
                         ELSE least(past, (date_trunc('month', first::timestamp) + interval '1 month')::date) END AS month
          FROM (SELECT 'range' AS name, :startDate AS first, :endDate + 1 AS past
                UNION ALL
                SELECT 'before', :startDate - (:endDate + 1 - :startDate), :startDate WHERE :type = 'metrics') r) p
    WHERE first < past
), part AS MATERIALIZED (
    SELECT p.name, m."institutionId", sum(m.amount) AS amount, sum(m."commissionAmount") AS commission, sum(m.n) AS n
    FROM period p JOIN payment_months m ON m.month >= p.month AND m.month < p.month_past
    GROUP BY 1, 2
    UNION ALL
    -- Summed as stored, in floating point, and rid of its noise: a cast of each row costs more than the rest.
    SELECT p.name, d."institutionId", trim_scale(round(sum(d.amount)::numeric, 6)),
           trim_scale(round(sum(d."commissionAmount")::numeric, 6)), count(*)
    FROM period p
    CROSS JOIN LATERAL (VALUES (p.first, p.month), (p.month_past, p.past)) AS e (first, past)
    JOIN payments d ON d.status = 'COMPLETED'
        AND coalesce(d."paidAt", d."createdAt") >= e.first::timestamp AT TIME ZONE 'UTC'
        AND coalesce(d."paidAt", d."createdAt") < e.past::timestamp AT TIME ZONE 'UTC'
    GROUP BY 1, 2
), source AS MATERIALIZED (
    SELECT s.*, i.id IS NOT NULL AS known, i.name, i."subscriptionPlan" AS plan
    FROM (SELECT "institutionId" AS id, sum(amount) AS amount, sum(commission) AS commission, sum(n) AS n
          FROM part WHERE part.name = 'range' GROUP BY 1) s
    LEFT JOIN institution i ON i.id = s.id
), total AS MATERIALIZED (
    SELECT coalesce(sum(amount) FILTER (WHERE name = 'range'), 0) AS amount,
           coalesce(sum(commission) FILTER (WHERE name = 'range'), 0) AS commission,
           coalesce(sum(amount) FILTER (WHERE name = 'before'), 0) AS before,
           greatest(:endDate - :startDate + 1, 0) AS days
    FROM part
)
SELECT CASE :type
WHEN 'metrics' THEN (
    SELECT json_build_object(
        'totalRevenue', t.amount,
        'commissionRevenue', t.commission,
        'growthRate', CASE WHEN t.before = 0 THEN 0 ELSE round((t.amount - t.before) / t.before * 100, 2) END,
        'topRevenueSources', (
            SELECT coalesce(json_agg(json_build_object(
                'id', s.id, 'name', s.name, 'revenue', s.amount, 'commission', s.commission, 'payments', s.n,
                'percentage', CASE WHEN t.amount = 0 THEN 0 ELSE round(s.amount / t.amount * 100, 2) END)
                ORDER BY s.amount DESC, s.id), '[]')
            FROM (SELECT * FROM source ORDER BY amount DESC, id LIMIT 5) s))
    FROM total t)
WHEN 'breakdown' THEN json_build_object(
    'byInstitution', (
        SELECT coalesce(json_agg(json_build_object('id', s.id, 'name', s.name, 'revenue', s.amount, 'commission', s.commission,
                                                   'payments', s.n) ORDER BY s.amount DESC, s.id), '[]')
        FROM source s),
    'byPlan', (
        SELECT coalesce(json_agg(json_build_object('plan', p.plan, 'revenue', p.amount, 'commission', p.commission,
                                                   'payments', p.n) ORDER BY p.amount DESC, p.plan), '[]')
        FROM (SELECT plan, sum(amount) AS amount, sum(commission) AS commission, sum(n) AS n FROM source GROUP BY 1) p),
    'byTimeframe', (
        SELECT json_agg(json_build_object('month', to_char(f.month, 'YYYY-MM'), 'revenue', f.amount, 'commission', f.commission,
                                          'payments', f.n) ORDER BY f.month)
        FROM (SELECT g.month, coalesce(sum(m.amount), 0) AS amount, coalesce(sum(m."commissionAmount"), 0) AS commission,
                     coalesce(sum(m.n), 0) AS n
              FROM generate_series(date_trunc('month', :endDate::timestamp) - interval '11 months',
                                   date_trunc('month', :endDate::timestamp), interval '1 month') AS g (month)
              LEFT JOIN payment_months m ON m.month = g.month::date
              GROUP BY 1) f))
ELSE (
    SELECT json_build_object(
        'nextMonth', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days * 30, 2) END,
        'nextQuarter', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days * 90, 2) END,
        'basis', json_build_object('startDate', :startDate, 'endDate', :endDate, 'days', t.days, 'totalRevenue', t.amount,
                                   'dailyAverage', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days, 2) END))
    FROM total t)
END
