-- Changes what is given of an institution; answers it as its detail does. Its slug stays.
-- null clears, and is refused where a value must be.
-- @route PATCH /api/admin/institutions/:id
-- @path id text max=36
-- @body name text trim min=1 max=255
-- @body city text trim min=1 max=100
-- @body country text trim min=1 max=100
-- @body email text trim min=1 max=50
-- @body description text
-- @body address text
-- @body state text trim max=100
-- @body postcode text trim max=20
-- @body website text trim
-- @body institutionEmail text trim
-- @body telephone text trim
-- @body contactName text trim
-- @body contactJobTitle text trim
-- @body contactPhone text trim
-- @body contactEmail text trim
-- @body logoUrl text trim
-- @body mainImageUrl text trim
-- @body facilities text
-- @body status text trim upper min=1 max=20
-- @body isApproved boolean
-- @body currency text trim upper min=3 max=3
-- @body commissionRate number min=0 max=100
-- @body discountSettings json
-- @body metadata json
-- @body socialMedia json
-- @body defaultMaxStudents integer min=0
-- @body stripeCustomerId text trim
-- @body subscriptionPlan text trim upper min=1 max=50
-- @body isFeatured boolean
-- @body isActive boolean
WITH changed AS (
    UPDATE institution SET (
        name, description, address, city, state, country, postcode, email, website, "institutionEmail", telephone,
        "contactName", "contactJobTitle", "contactPhone", "contactEmail", "logoUrl", "mainImageUrl", facilities, status,
        "isApproved", currency, "commissionRate", "discountSettings", metadata, "socialMedia", "defaultMaxStudents",
        "stripeCustomerId", "subscriptionPlan", "isFeatured", "isActive", "updatedAt") = (SELECT
        n.name, n.description, n.address, n.city, n.state, n.country, n.postcode, n.email, n.website, n."institutionEmail",
        n.telephone, n."contactName", n."contactJobTitle", n."contactPhone", n."contactEmail", n."logoUrl", n."mainImageUrl",
        n.facilities, n.status, n."isApproved", n.currency, n."commissionRate", n."discountSettings", n.metadata,
        n."socialMedia", n."defaultMaxStudents", n."stripeCustomerId", n."subscriptionPlan", n."isFeatured", n."isActive",
        now()
        FROM jsonb_populate_record(institution, :body) n)
    WHERE id = :id RETURNING *
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'UPDATE', 'institution', id, :body, 'INFO', 'ADMIN' FROM changed
)
SELECT row_to_json(item) FROM (
    SELECT i.*,
           json_build_object(
               'users', (SELECT count(*) FROM "user" u WHERE u."institutionId" = i.id),
               'courses', (SELECT count(*) FROM course c WHERE c."institutionId" = i.id)) AS _count
    FROM changed i
) item
