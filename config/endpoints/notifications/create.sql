-- Notifies users, named or all active ones of a role: a row each in notification_logs, which is also what their
-- dashboards are sent, at least once, however long they are away. Answers how many.
-- A user who is named twice is notified once; an id that nobody has refuses all, and so does a role of more than
-- 5000: each is an event, and servers have room for some thousands at a time.
-- @route POST /api/admin/notifications
-- @body recipientIds text[] trim min=1 max=1000
-- @body role text trim upper enum=ADMIN|INSTITUTION|INSTITUTION_STAFF|INSTRUCTOR|STUDENT
-- @body type text required trim min=1 max=50
-- @body title text required trim min=1 max=255
-- @body content text required trim min=1 max=10000
-- @status 202
-- @timeout 30s
WITH batch AS MATERIALIZED (
    SELECT gen_random_uuid()::text AS id
), chosen AS MATERIALIZED (
    SELECT id FROM "user" WHERE id = ANY (:recipientIds)
    UNION ALL
    (SELECT id FROM "user" WHERE role = :role AND status = 'ACTIVE' LIMIT 5001)
), unknown AS MATERIALIZED (
    -- Their places in the body, counted from 0 as in every problem with it.
    SELECT place - 1 AS place FROM unnest(:recipientIds) WITH ORDINALITY r (id, place)
    WHERE NOT EXISTS (SELECT FROM chosen c WHERE c.id = r.id) ORDER BY place
), refused AS MATERIALIZED (
    SELECT provost.fail(422, reason) FROM (SELECT CASE
        WHEN (:recipientIds IS NULL) = (:role IS NULL) THEN 'Either recipientIds or role is required, and not both.'
        WHEN (SELECT count(*) FROM chosen) > 5000 THEN 'More than 5000 active users have this role.'
        WHEN EXISTS (SELECT FROM unknown) THEN format('There is no such user: %s%s.',
            (SELECT string_agg(format('recipientIds[%s]', place), ', ' ORDER BY place) FROM (SELECT place FROM unknown LIMIT 10) u),
            (SELECT CASE WHEN count(*) > 10 THEN format(' and %s more', count(*) - 10) END FROM unknown))
        END AS reason) r WHERE reason IS NOT NULL
), added AS (
    INSERT INTO notification_logs ("recipientId", type, title, content, status, "sentAt", metadata)
    SELECT chosen.id, :type, :title, :content, 'SENT', now(), jsonb_build_object('sentBy', :auth_sub, 'batchId', batch.id)
    FROM chosen CROSS JOIN batch WHERE NOT EXISTS (SELECT FROM refused) RETURNING *
), published AS MATERIALIZED (
    SELECT provost.publish('user:' || "recipientId", 'notification', to_jsonb(added)) FROM added
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'CREATE', 'notification', batch.id, :body || jsonb_build_object('count', (SELECT count(*) FROM added)), 'INFO', 'ADMIN'
    FROM batch WHERE NOT EXISTS (SELECT FROM refused)
)
SELECT json_build_object('count', count(*)) FROM published
