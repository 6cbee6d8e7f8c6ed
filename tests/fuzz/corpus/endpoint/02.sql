-- @route GET /a
-- @query a numeric min=0.1 max=1e3
-- @query b timestamp min=2020-01-01
-- @query c uuid required
-- @query d integer[] default=1|2
SELECT a[:a:b], :b, :c, :d, :auth_sub