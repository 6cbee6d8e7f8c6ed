-- @route DELETE /api/blinks/:id
-- @path id integer
-- @query v bigint required
-- @returns json
WITH s AS (UPDATE blink_sequence SET v = :v WHERE id = :id AND v < :v RETURNING id),
     b AS (DELETE FROM blink USING s WHERE blink.id = s.id)
SELECT json_build_array((SELECT id FROM s))
