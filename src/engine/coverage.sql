/* provost */
-- Whether changes of tables are told: one row per topmost table of a tree ($1, an oid per column that is to be
-- told; $2, the column, or NULL) and member of the tree. The catalogue's own names are written out in full: this
-- is run with any search_path. What tags call a table, and which are PostgreSQL's own, is as in discover.h.
WITH RECURSIVE need (root, col) AS (
    SELECT * FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.text[])
), tree (root, member) AS (
    SELECT root, root FROM need
    UNION
    -- Temporary children are their session's alone.
    SELECT t.root, i.inhrelid FROM tree t
    JOIN pg_catalog.pg_inherits i ON i.inhparent = t.member
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
), wanted (name, type, old, new) AS (
    -- pg_trigger.tgtype: after the statement, which is a bit of its own
    VALUES ('provost_insert', 4, NULL, 'provost_new'),
           ('provost_update', 16, 'provost_old', 'provost_new'),
           ('provost_delete', 8, 'provost_old', NULL),
           ('provost_truncate', 32, NULL, NULL)
), found AS (
    SELECT g.*, pg_catalog.format('%s %s %s', g.oid, g.xmin, p.xmin) AS digest,
        -- Only who owns the schema can have made one of its functions a trigger.
        coalesce(n.nspname = 'provost' AND p.prosecdef AND a.arg[1] = pg_catalog.left(pg_catalog.encode(
            pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex'), 16), false) AS ours, a.arg
    FROM pg_catalog.pg_trigger g
    JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    -- The arguments, each of which a zero byte ends.
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT pg_catalog.convert_from(pg_catalog.decode(x, 'hex'), pg_catalog.getdatabaseencoding())
            FROM pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.regexp_replace(
                pg_catalog.encode(g.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ')) WITH ORDINALITY u (x, i)
            ORDER BY i)) a (arg)
    WHERE g.tgname LIKE 'provost\_%' AND NOT g.tgisinternal AND g.tgrelid IN (SELECT member FROM tree)
), state AS (
    SELECT t.root, t.member, w.name, f.digest,
        CASE
        WHEN f.oid IS NULL THEN 'missing'
        WHEN f.tgenabled <> 'A' THEN 'disabled'
        WHEN NOT f.ours OR f.tgtype <> w.type OR f.tgqual IS NOT NULL OR pg_catalog.cardinality(f.tgattr) > 0
            OR f.tgoldtable IS DISTINCT FROM w.old OR f.tgnewtable IS DISTINCT FROM w.new THEN 'changed'
        WHEN told.cols IS NULL THEN 'other'
        WHEN lack.cols <> '{}' THEN 'less'
        END AS problem, lack.cols AS lack
    FROM tree t
    JOIN pg_catalog.pg_class c ON c.oid = t.root
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN wanted w
    LEFT JOIN found f ON f.tgrelid = t.member AND f.tgname = w.name
    -- Behind the hash of the function: pairs of a tag and the columns that are told with it.
    LEFT JOIN LATERAL (
        SELECT CASE WHEN f.ours THEN f.arg[i + 1]::pg_catalog.text[] END
        FROM pg_catalog.generate_series(2, pg_catalog.cardinality(f.arg) - 1, 2) i
        WHERE f.arg[i] = CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname LIMIT 1) told (cols) ON true
    LEFT JOIN LATERAL (
        -- Nor is a column told any more whose values are no longer of one spelling each, as @depends has them:
        -- what it is found by then need not be what is told.
        SELECT ARRAY(SELECT col FROM need WHERE need.root = t.root AND col IS NOT NULL AND (col <> ALL (told.cols)
                         OR NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                        LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
                                        WHERE a.attrelid = t.member AND a.attname = col AND NOT a.attisdropped
                                          AND a.atttypid IN (25, 1043, 2950, 20, 21, 23)
                                          AND coalesce(l.collisdeterministic, true))) ORDER BY 1)) lack (cols) ON true
), member AS (
    SELECT root, member, pg_catalog.string_agg(digest, ' ' ORDER BY name) AS digest,
        pg_catalog.string_agg(name, ', ' ORDER BY name) FILTER (WHERE problem = 'missing') AS missing,
        pg_catalog.count(*) FILTER (WHERE problem = 'missing') AS missings,
        pg_catalog.string_agg(name, ', ' ORDER BY name) FILTER (WHERE problem = 'disabled') AS disabled,
        pg_catalog.string_agg(name, ', ' ORDER BY name) FILTER (WHERE problem = 'changed') AS changed,
        pg_catalog.bool_or(problem = 'other') AS other,
        pg_catalog.array_to_string((pg_catalog.array_agg(lack) FILTER (WHERE problem = 'less'))[1:1], ', ') AS lack
    FROM state GROUP BY root, member
)
SELECT t.root, t.member,
    -- What the member is called, as tags call tables.
    CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname,
    CASE
    WHEN c.oid IS NULL OR c.relkind NOT IN ('r', 'p') OR n.nspname IN ('pg_catalog', 'information_schema') THEN 'unsupported'
    WHEN m.missing IS NOT NULL THEN 'missing'
    WHEN m.disabled IS NOT NULL THEN 'disabled'
    WHEN m.changed IS NOT NULL OR m.other OR m.lack IS NOT NULL THEN 'outdated'
    END,
    CASE
    WHEN c.oid IS NULL THEN 'is not there any more'
    WHEN n.nspname IN ('pg_catalog', 'information_schema') THEN 'is PostgreSQL''s own'
    WHEN c.relkind NOT IN ('r', 'p') THEN 'is a ' || CASE c.relkind WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'
        WHEN 'm' THEN 'materialized view' WHEN 'v' THEN 'view' ELSE 'relation without rows' END
    WHEN m.missings = 4 THEN 'has no triggers'
    WHEN m.missing IS NOT NULL THEN 'lacks ' || m.missing
    WHEN m.disabled IS NOT NULL THEN 'has ' || m.disabled || ' disabled, or not enabled always'
    WHEN m.changed IS NOT NULL THEN 'has had ' || m.changed || ' changed'
    WHEN m.other THEN 'has triggers that tell of a table by another name'
    WHEN m.lack IS NOT NULL THEN 'has triggers that do not tell of ' || m.lack
    END,
    -- Another one: the table or its triggers have been altered, or its rows are others without its triggers' doing.
    pg_catalog.format('%s %s %s %s', t.member, c.xmin, c.relfilenode, m.digest)
FROM tree t
LEFT JOIN pg_catalog.pg_class c ON c.oid = t.member
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN member m ON m.root = t.root AND m.member = t.member
ORDER BY t.root, t.member = t.root DESC, t.member
