-- Totals of the subscriptions and the five institutions with the most revenue.
-- monthlyRevenue is what ACTIVE subscriptions cost in a month (a twelfth of an annual price), annualRevenue
-- twelve times that, averageCommissionRate the mean over them. topPerformingInstitutions, of all that
-- subscribe, are by their COMPLETED payments, from maintained totals.
-- @route GET /api/admin/subscriptions/stats
-- @cache ttl=10m tags=subscriptions
WITH subscription AS MATERIALIZED (
    SELECT s."institutionId", s.status = 'ACTIVE' AS active, t."planType", t."commissionRate",
           t.price::numeric / CASE upper(t."billingCycle") WHEN 'ANNUAL' THEN 12 WHEN 'YEARLY' THEN 12
                                                           WHEN 'QUARTERLY' THEN 3 ELSE 1 END AS monthly
    FROM institution_subscriptions s JOIN commission_tiers t ON t.id = s."commissionTierId"
), best AS MATERIALIZED (
    SELECT s."institutionId" AS id, s."planType", coalesce(sum(r.amount), 0) AS revenue
    FROM subscription s LEFT JOIN revenue_sums r ON r.span = 'year' AND r."institutionId" = s."institutionId"
    GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 5
)
SELECT json_build_object(
    'totalSubscriptions', count(*),
    'activeSubscriptions', count(*) FILTER (WHERE active),
    'monthlyRevenue', round(coalesce(sum(monthly) FILTER (WHERE active), 0), 2),
    'annualRevenue', round(12 * coalesce(sum(monthly) FILTER (WHERE active), 0), 2),
    'averageCommissionRate', coalesce(round((avg("commissionRate") FILTER (WHERE active))::numeric, 2), 0),
    'topPerformingInstitutions', (
        SELECT coalesce(json_agg(json_build_object('id', b.id, 'name', i.name, 'planType', b."planType", 'revenue', b.revenue)
                                 ORDER BY b.revenue DESC, b.id), '[]')
        FROM best b JOIN institution i ON i.id = b.id))
FROM subscription
