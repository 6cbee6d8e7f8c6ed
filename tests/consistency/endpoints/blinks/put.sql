-- @route PUT /api/blinks/:id
-- @path id integer
-- @body v bigint required
-- @returns json
WITH s AS (UPDATE blink_sequence SET v = :v WHERE id = :id AND v < :v RETURNING id, v),
     b AS (INSERT INTO blink SELECT id, v FROM s)
SELECT json_build_array((SELECT v FROM s))
