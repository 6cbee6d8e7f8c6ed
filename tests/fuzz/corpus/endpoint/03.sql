-- @role public
-- @foo
SELECT $1