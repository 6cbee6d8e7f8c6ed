-- Suspends a user or lets one in again; answers the user as the detail does, never with the password.
-- @route PATCH /api/admin/users/:id/status
-- @path id text max=36
-- @body status text required trim upper enum=ACTIVE|SUSPENDED
WITH changed AS (
    UPDATE "user" SET status = :status, "updatedAt" = now() WHERE id = :id
    RETURNING id, name, email, role, "institutionId", status, image, "emailVerified", "lastLoginAt", "createdAt", "updatedAt"
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'user', id, jsonb_build_object('status', status), 'WARNING', 'ADMIN' FROM changed
)
SELECT json_build_object(
    'id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'institutionId', u."institutionId", 'status', u.status,
    'image', u.image, 'emailVerified', u."emailVerified", 'lastLoginAt', u."lastLoginAt",
    'createdAt', u."createdAt", 'updatedAt', u."updatedAt",
    'institution', (SELECT json_build_object('id', i.id, 'name', i.name) FROM institution i WHERE i.id = u."institutionId"),
    'bookingsCount', (SELECT count(*) FROM booking b WHERE b."userId" = u.id))
FROM changed u
