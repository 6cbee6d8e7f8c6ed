-- The next versions of several rows, in one statement. In the order of their ids, so that two of these do not
-- wait for each other.
-- @route POST /api/bump
-- @body ids integer[] required max=1000
-- @body w bigint required
-- @status 200
WITH l AS (SELECT id FROM item WHERE id = ANY (:ids) ORDER BY id FOR UPDATE),
     i AS (UPDATE item SET v = v + 1, w = :w, grp = group_of(item.id, v + 1) FROM l WHERE item.id = l.id
           RETURNING item.id, item.v, item.grp, item.w),
     n AS (UPDATE note SET v = i.v FROM i WHERE note.item = i.id)
SELECT coalesce(json_agg(json_build_array(id, v, grp, w, v)), '[]') FROM i
