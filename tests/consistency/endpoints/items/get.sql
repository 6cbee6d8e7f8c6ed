-- One row, with what was written together with it.
-- @route GET /api/items/:id
-- @path id integer
-- @cache ttl=10m stale_if_error=0
-- @depends item(id=:id), note(item=:id)
SELECT json_build_array(json_build_array(i.id, i.v, i.grp, i.w, n.v))
  FROM item i JOIN note n ON n.item = i.id WHERE i.id = :id
