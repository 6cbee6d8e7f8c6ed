-- @route PATCH /a/:id
-- @path id bigint
-- @body t text required
-- @body p json[] {w integer min=1 max=53, n text default='a, {b}', x numeric} max=520
SELECT :body, :id
