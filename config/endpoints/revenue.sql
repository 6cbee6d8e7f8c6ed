-- Revenue of a range of days, as metrics, as a breakdown or as a projection.
-- COMPLETED payments by coalesce(paidAt, createdAt), in UTC, both days inclusive, all from maintained
-- sums. An institution's revenue of a range is read along a walk from its first day to the day past it:
-- by days to the nearest month, by months to the nearest year, by years, and down again; a step back in
-- time is taken away. Where it is no detour months, or years, are left out.
-- metrics: growthRate compares with as many days just before. breakdown: byPlan is by the institution's
-- plan (null for the platform itself and institutions that are gone), byTimeframe the twelve whole
-- months up to the one endDate is in. projection: the range's revenue per day, times 30 and 90.
-- @route GET /api/admin/revenue
-- @query startDate date required
-- @query endDate date required
-- @query type text trim lower enum=metrics|breakdown|projection default=metrics
-- @cache ttl=10m tags=revenue
WITH period AS MATERIALIZED (
    SELECT :startDate AS first, greatest(:endDate + 1, :startDate) AS past
), total AS MATERIALIZED (
    SELECT coalesce(sum(r.amount) FILTER (WHERE r.first >= p.first), 0) AS amount,
           coalesce(sum(r."commissionAmount") FILTER (WHERE r.first >= p.first), 0) AS commission,
           coalesce(sum(r.amount) FILTER (WHERE r.first < p.first), 0) AS before,
           greatest(:endDate - :startDate + 1, 0) AS days
    FROM period p
    JOIN revenue_sums r ON r.span = 'total' AND r.first >= p.first - (p.past - p.first) AND r.first < p.past
), month AS (
    SELECT *, past - first <= abs(month_1 - first) + abs(past - month_2) + (month_2 - month_1) / 30 AS by_days
    FROM (SELECT *, date_trunc('month', first::timestamp + interval '15 days')::date AS month_1,
                 date_trunc('month', past::timestamp + interval '15 days')::date AS month_2 FROM period) m
), year AS (
    SELECT *, month_2 - month_1 <= abs(year_1 - month_1) + abs(month_2 - year_2) + (year_2 - year_1) / 12 AS by_months
    FROM (SELECT *, date_trunc('year', month_1::timestamp + interval '6 months')::date AS year_1,
                 date_trunc('year', month_2::timestamp + interval '6 months')::date AS year_2 FROM month) y
), step AS MATERIALIZED (
    SELECT s.span, least(s.a, s.b) AS first, greatest(s.a, s.b) AS past, s.b < s.a AS back
    FROM year y CROSS JOIN LATERAL (VALUES
        ('day',   y.first,   y.past,    y.by_days),
        ('day',   y.first,   y.month_1, NOT y.by_days),
        ('day',   y.month_2, y.past,    NOT y.by_days),
        ('month', y.month_1, y.month_2, NOT y.by_days AND y.by_months),
        ('month', y.month_1, y.year_1,  NOT y.by_days AND NOT y.by_months),
        ('month', y.year_2,  y.month_2, NOT y.by_days AND NOT y.by_months),
        ('year',  y.year_1,  y.year_2,  NOT y.by_days AND NOT y.by_months)) AS s (span, a, b, taken)
    WHERE s.taken
), source AS MATERIALIZED (
    SELECT s.*, i.name, i."subscriptionPlan" AS plan
    FROM (SELECT r."institutionId" AS id,
                 sum(CASE WHEN step.back THEN -r.amount ELSE r.amount END) AS amount,
                 sum(CASE WHEN step.back THEN -r."commissionAmount" ELSE r."commissionAmount" END) AS commission,
                 sum(CASE WHEN step.back THEN -r.n ELSE r.n END) AS n
          FROM step JOIN revenue_sums r ON r.span = step.span AND r.first >= step.first AND r.first < step.past
          GROUP BY 1) s
    LEFT JOIN institution i ON i.id = s.id
    WHERE s.n <> 0
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
        FROM (SELECT g.month, coalesce(sum(r.amount), 0) AS amount, coalesce(sum(r."commissionAmount"), 0) AS commission,
                     coalesce(sum(r.n), 0) AS n
              FROM generate_series(date_trunc('month', :endDate::timestamp) - interval '11 months',
                                   date_trunc('month', :endDate::timestamp), interval '1 month') AS g (month)
              LEFT JOIN revenue_sums r ON r.span = 'total' AND r.first >= g.month::date
                                          AND r.first < (g.month + interval '1 month')::date
              GROUP BY 1) f))
ELSE (
    SELECT json_build_object(
        'nextMonth', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days * 30, 2) END,
        'nextQuarter', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days * 90, 2) END,
        'basis', json_build_object('startDate', :startDate, 'endDate', :endDate, 'days', t.days, 'totalRevenue', t.amount,
                                   'dailyAverage', CASE WHEN t.days = 0 THEN 0 ELSE round(t.amount / t.days, 2) END))
    FROM total t)
END
