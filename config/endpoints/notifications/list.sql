-- A page of notifications, newest first: one user's, or everybody's.
-- @route GET /api/admin/notifications
-- @query userId text max=36
-- @query status text trim upper enum=PENDING|SENT|READ|FAILED
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=50
-- @cache ttl=2m tags=notifications
-- notification_counts changes with notification_logs alone, on the whole of which everybody's page depends; a user's
-- does not look at it.
-- @depends notification_logs(recipientId=:userId), !notification_counts
WITH page AS MATERIALIZED (
    -- LIMIT 100, the most that :limit may be, tells a generic plan that this is a page and not a tenth of the table.
    SELECT * FROM (
    (SELECT id, "createdAt" FROM notification_logs WHERE :userId IS NULL AND :status IS NULL
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM notification_logs WHERE :userId IS NULL AND status = :status
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    UNION ALL
    (SELECT id, "createdAt" FROM notification_logs WHERE "recipientId" = :userId AND (:status IS NULL OR status = :status)
     ORDER BY "createdAt" DESC, id DESC LIMIT :limit OFFSET (:page::bigint - 1) * :limit)
    ) p LIMIT 100
), size AS MATERIALIZED (
    -- Of everybody's from a maintained total, of a user's from the index.
    SELECT CASE WHEN :userId IS NULL
        THEN (SELECT coalesce(sum(n), 0) FROM notification_counts WHERE :status IS NULL OR status = :status)
        ELSE (SELECT count(*) FROM notification_logs WHERE "recipientId" = :userId AND (:status IS NULL OR status = :status))
        END::bigint AS n
)
SELECT json_build_object(
    'notifications', (
        SELECT coalesce(json_agg(row_to_json(item) ORDER BY page."createdAt" DESC, page.id DESC), '[]')
        FROM page CROSS JOIN LATERAL (SELECT * FROM notification_logs n WHERE n.id = page.id OFFSET 0) item),
    'pagination', json_build_object('total', n, 'page', :page, 'limit', :limit, 'totalPages', (n + :limit - 1) / :limit))
FROM size
