-- How many payments wait for a decision, from maintained totals.
-- @route GET /api/admin/payments/pending-count
-- @cache ttl=10m tags=payments
SELECT json_build_object('count', coalesce(sum(n), 0))
FROM payment_totals WHERE status IN ('PENDING', 'PROCESSING', 'INITIATED')
