-- The row's next version.
-- @route PATCH /api/items/:id
-- @path id integer
-- @body w bigint required
WITH i AS (UPDATE item SET v = v + 1, w = :w, grp = group_of(id, v + 1) WHERE id = :id RETURNING id, v, grp, w),
     n AS (UPDATE note SET v = i.v FROM i WHERE note.item = i.id)
SELECT json_build_array(json_build_array(id, v, grp, w, v)) FROM i
