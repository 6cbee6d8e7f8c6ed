/* provost */
-- What the triggers of every member of the trees $1 (topmost tables; an oid per column that is to be told: $2, or NULL)
-- are to tell, and what is there already. One row per member, tree that it is in, and column (NULL: none).
-- What is told goes on being told: other servers, with other endpoints, may count on it. With search_path = pg_catalog.
WITH RECURSIVE need (root, col) AS (
    SELECT * FROM unnest($1::oid[], $2::text[])
), tree (root, member) AS (
    SELECT root, root FROM need
    UNION
    -- Temporary children are their session's alone.
    SELECT t.root, i.inhrelid FROM tree t
    JOIN pg_inherits i ON i.inhparent = t.member
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
), up (member, ancestor) AS (
    SELECT DISTINCT member, member FROM tree
    UNION
    SELECT u.member, i.inhparent FROM up u JOIN pg_inherits i ON i.inhrelid = u.ancestor
), top AS (
    -- The trees that a member is in, each with its key.
    SELECT u.member, u.ancestor AS root,
        CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname AS tag,
        ARRAY(SELECT a.attname::text FROM pg_index x
              JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
              WHERE x.indrelid = c.oid AND x.indisprimary) AS key
    FROM up u
    JOIN pg_class c ON c.oid = u.ancestor
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = u.ancestor)
), found AS (
    SELECT g.*, ARRAY(
        SELECT convert_from(decode(x, 'hex'), getdatabaseencoding())
        FROM unnest(string_to_array(regexp_replace(encode(g.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 '))
             WITH ORDINALITY u (x, i)
        ORDER BY i) AS arg
    FROM pg_trigger g
    WHERE g.tgname LIKE 'provost\_%' AND NOT g.tgisinternal AND g.tgrelid IN (SELECT member FROM tree)
), told AS (
    SELECT t.member, t.root, a.attname::text AS col, a.attnum, t.key = ARRAY[a.attname::text] AS is_key
    FROM top t
    JOIN pg_attribute a ON a.attrelid = t.member AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    -- Types whose values have one spelling each, as @depends has them.
    WHERE a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype,
                         'bigint'::regtype, 'integer'::regtype, 'smallint'::regtype)
      AND coalesce(l.collisdeterministic, true)
      AND (a.attname = ANY (t.key)
           OR a.attname::text IN (SELECT col FROM need WHERE need.root = t.root)
           OR EXISTS (SELECT FROM found f CROSS JOIN generate_series(2, cardinality(f.arg) - 1, 2) i
                      WHERE f.tgrelid = t.member AND f.arg[i] = t.tag AND f.arg[i + 1] LIKE '{%}'
                        AND a.attname = ANY (f.arg[i + 1]::text[])))
), there AS (
    -- Of each member the text of its function, whom default privileges or others have given rights on it, and its
    -- triggers as they would be printed.
    SELECT m.member, m.function,
        (SELECT string_agg(CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, ', ' ORDER BY g.grantee)
         FROM (SELECT 0::oid AS grantee
               UNION
               SELECT x.grantee FROM pg_proc p, aclexplode(p.proacl) x
               WHERE p.pronamespace = to_regnamespace('provost') AND p.proname = m.function AND x.grantee <> p.proowner
               UNION
               SELECT x.grantee FROM pg_default_acl d, aclexplode(d.defaclacl) x
               WHERE d.defaclobjtype = 'f' AND pg_get_userbyid(d.defaclrole) = current_user AND x.grantee <> d.defaclrole) g
         -- Who owns what is there goes on owning it, whoever installs.
         WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = to_regnamespace('provost') AND p.proname = m.function
                           AND p.pronargs = 0 AND p.proowner = g.grantee)) AS strangers,
        (SELECT p.prosrc FROM pg_proc p WHERE p.pronamespace = to_regnamespace('provost') AND p.proname = m.function
            AND p.pronargs = 0 AND p.prosecdef AND p.proconfig = '{"search_path=pg_catalog, pg_temp"}'
            AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
                            WHERE x.grantee <> p.proowner)) AS source,
        ARRAY(SELECT (SELECT pg_get_triggerdef(f.oid) FROM found f
                      WHERE f.tgrelid = m.member AND f.tgname = w.name AND f.tgenabled = 'A')
              FROM unnest('{provost_insert,provost_update,provost_delete,provost_truncate}'::text[])
                   WITH ORDINALITY w (name, i) ORDER BY i) AS triggers
    FROM (SELECT c.oid AS member, 'changed_' || left(encode(sha256(convert_to(format('%I.%I', n.nspname, c.relname), 'UTF8')), 'hex'), 16)
              AS function
          FROM (SELECT DISTINCT member FROM tree) t
          JOIN pg_class c ON c.oid = t.member
          JOIN pg_namespace n ON n.oid = c.relnamespace) m
)
SELECT m.member, CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname,
    format('%I.%I', n.nspname, c.relname), m.function, m.strangers, m.source,
    m.triggers[1], m.triggers[2], m.triggers[3], m.triggers[4],
    pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner),
    t.tag, to_json(t.tag), k.col, quote_ident(k.col), to_json(k.col), k.is_key
FROM there m
JOIN pg_class c ON c.oid = m.member
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN top t USING (member)
LEFT JOIN told k ON k.member = t.member AND k.root = t.root
ORDER BY min(t.tag) OVER (PARTITION BY m.member), t.root <> m.member, 2, 1, t.tag, k.attnum
