-- One user as in the list, with the number of bookings made; never the password.
-- @route GET /api/admin/users/:id
-- @path id text max=36
-- @cache ttl=5m tags=users
-- @depends "user"(id=:id), booking(userId=:id)
SELECT json_build_object(
    'id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'institutionId', u."institutionId", 'status', u.status,
    'image', u.image, 'emailVerified', u."emailVerified", 'lastLoginAt', u."lastLoginAt",
    'createdAt', u."createdAt", 'updatedAt', u."updatedAt",
    'institution', (SELECT json_build_object('id', i.id, 'name', i.name) FROM institution i WHERE i.id = u."institutionId"),
    'bookingsCount', (SELECT count(*) FROM booking b WHERE b."userId" = :id))
FROM "user" u WHERE u.id = :id
