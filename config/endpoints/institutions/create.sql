-- Creates an institution; answers it as its detail does. What is left out, or null, has the column's default.
-- @route POST /api/admin/institutions
-- @body name text required trim min=1 max=255
-- @body city text required trim min=1 max=100
-- @body country text required trim min=1 max=100
-- @body email text required trim min=1 max=50
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
WITH made AS MATERIALIZED (
    SELECT * FROM insert_with_slug(NULL::institution, :name, :body)
), audit AS (
    INSERT INTO audit_logs ("userId", action, resource, "resourceId", details, severity, category)
    SELECT :auth_sub, 'CREATE', 'institution', id, :body, 'INFO', 'ADMIN' FROM made
)
SELECT row_to_json(item) FROM (
    SELECT i.*, json_build_object('users', 0, 'courses', 0) AS _count FROM made i
) item
