-- Changes what is given of a user; answers the user as the detail does, never with the password.
-- null clears, and is refused where a value must be.
-- @route PATCH /api/admin/users/:id
-- @path id text max=36
-- @body name text trim min=1 max=255
-- @body role text trim upper enum=ADMIN|INSTITUTION|INSTITUTION_STAFF|INSTRUCTOR|STUDENT
-- @body institutionId text max=36
-- @body image text trim
WITH changed AS (
    UPDATE "user" SET
        name = CASE WHEN :body ? 'name' THEN :name ELSE name END,
        role = CASE WHEN :body ? 'role' THEN :role ELSE role END,
        "institutionId" = CASE WHEN :body ? 'institutionId' THEN :institutionId ELSE "institutionId" END,
        image = CASE WHEN :body ? 'image' THEN :image ELSE image END,
        "updatedAt" = now()
    WHERE id = :id
    RETURNING id, name, email, role, "institutionId", status, image, "emailVerified", "lastLoginAt", "createdAt", "updatedAt"
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'user', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT json_build_object(
    'id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'institutionId', u."institutionId", 'status', u.status,
    'image', u.image, 'emailVerified', u."emailVerified", 'lastLoginAt', u."lastLoginAt",
    'createdAt', u."createdAt", 'updatedAt', u."updatedAt",
    'institution', (SELECT json_build_object('id', i.id, 'name', i.name) FROM institution i WHERE i.id = u."institutionId"),
    'bookingsCount', (SELECT count(*) FROM booking b WHERE b."userId" = u.id))
FROM changed u
