#include "discover.h"

#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "provost/buf.h"
#include "ways.h"

/* ---- the statement as a function's body ---------------------------------------------- */

enum { ARGUMENTS_MAX = 100 }; /* PostgreSQL's FUNC_MAX_ARGS */

/* Types of parameters, as endpoint files have them. */
static const struct {
	pg_oid oid;
	const char *name;
} TYPES[] = {
    {16, "boolean"},
    {20, "bigint"},
    {23, "integer"},
    {25, "text"},
    {701, "double precision"},
    {1082, "date"},
    {1184, "timestamptz"},
    {1700, "numeric"},
    {2950, "uuid"},
    {3802, "jsonb"},
    {1000, "boolean[]"},
    {1016, "bigint[]"},
    {1007, "integer[]"},
    {1009, "text[]"},
    {1022, "double precision[]"},
    {1182, "date[]"},
    {1185, "timestamptz[]"},
    {1231, "numeric[]"},
    {2951, "uuid[]"},
    {3807, "jsonb[]"},
};

static const char *type_name(pg_oid oid)
{
	for (size_t i = 0; i < ELEMENTSOF(TYPES); i++)
		if (TYPES[i].oid == oid)
			return TYPES[i].name;
	ALWAYS(!"a type of parameters");
	return NULL;
}

/* A function rather than a view: its $1 are the statement's own, so nothing is to be replaced. The
 * newline ends a line comment that the statement may end in. */
static char *function_text(const struct stmt *s)
{
	_cleanup_buf_ struct buf b = {0};
	size_t len;
	buf_adds(&b, "/* provost */ CREATE FUNCTION pg_temp.provost_statement(");
	for (size_t i = 0; i < s->binds; i++)
		buf_addf(&b, "%s%s", i ? ", " : "", type_name(s->oid[i]));
	buf_adds(&b, ") RETURNS void LANGUAGE sql BEGIN ATOMIC ");
	buf_add(&b, s->sql, s->sql_len);
	buf_adds(&b, "\n; END");
	char *text = buf_take(&b, &len);
	ALWAYS(text);
	return text;
}

/* ---- the walk ------------------------------------------------------------------------ */

/* Functions in C of these extensions look at their arguments and at settings, though some are
 * STABLE. Of others that cannot be said: tablefunc's crosstab('SELECT …') is STABLE and in C too.
 */
#define HARMLESS_EXTENSIONS                                                                        \
	"'btree_gin', 'btree_gist', 'citext', 'cube', 'dict_int', 'dict_xsyn', 'earthdistance',"   \
	" 'fuzzystrmatch', 'hstore', 'intarray', 'isn', 'ltree', 'pg_trgm', 'pgcrypto', 'seg',"    \
	" 'tsm_system_rows', 'tsm_system_time', 'unaccent', 'uuid-ossp', 'vector'"

/* PostgreSQL's own functions that run SQL given as text, read tables by name, or large objects. */
#define READING_BUILTINS                                                                           \
	"'cursor_to_xml', 'database_to_xml', 'database_to_xml_and_xmlschema', 'lo_get',"           \
	" 'lo_open', 'loread', 'query_to_xml', 'query_to_xml_and_xmlschema', 'schema_to_xml',"     \
	" 'schema_to_xml_and_xmlschema', 'table_to_xml', 'table_to_xml_and_xmlschema',"            \
	" 'ts_rewrite', 'ts_stat'"

/* One row per table, opaque function, way, and hash: what, oid, name, whether it is PostgreSQL's
 * own, and of a way what it means.
 *
 * `reached` begins with the temporary function. Of functions, operators, rules, policies and
 * constraints everything they depend on is reached; of views the rule, of tables the policies; of
 * types what they are of, the constraints of domains and the functions that read and write values.
 * json functions look for a cast to json by themselves. What else tables depend on (defaults,
 * checks, triggers) is the business of writers.
 *
 * PostgreSQL notes no dependency on what it was born with, so its own tables, and its functions
 * that read what they are told to, are looked up in the texts of the bodies. There the names that
 * people chose have their blanks escaped, so no name can look like a field. */
static const char WALK[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE reached (classid, objid) AS ("
    " SELECT 'pg_catalog.pg_proc'::regclass::oid, p.oid FROM pg_catalog.pg_proc p"
    " WHERE p.pronamespace = pg_my_temp_schema() AND p.proname = 'provost_statement'"
    " UNION"
    " SELECT next.classid, next.objid FROM reached r CROSS JOIN LATERAL ("
    "  SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d"
    "  WHERE d.classid = r.classid AND d.objid = r.objid AND d.deptype IN ('n', 'a', 'i')"
    "  AND r.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,"
    "   'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass,"
    "   'pg_catalog.pg_constraint'::regclass)"
    /* Of relations. */
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_rewrite'::regclass, w.oid FROM pg_catalog.pg_class c"
    "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    "  JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid AND w.ev_type = '1'"
    "  WHERE r.classid = 'pg_catalog.pg_class'::regclass AND c.oid = r.objid"
    "  AND c.relkind = 'v' AND NOT " SQL_IS_SYSTEM
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_policy'::regclass, y.oid FROM pg_catalog.pg_class c"
    "  JOIN pg_catalog.pg_policy y ON y.polrelid = c.oid"
    "  WHERE r.classid = 'pg_catalog.pg_class'::regclass AND c.oid = r.objid"
    "  AND c.relrowsecurity AND y.polcmd IN ('r', '*')"
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_proc'::regclass, k.castfunc FROM pg_catalog.pg_attribute a"
    "  JOIN pg_catalog.pg_cast k ON k.castsource = a.atttypid"
    "  AND k.casttarget = 'pg_catalog.json'::regtype"
    "  WHERE r.classid = 'pg_catalog.pg_class'::regclass AND a.attrelid = r.objid"
    "  AND a.attnum > 0 AND NOT a.attisdropped"
    /* Of types. */
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM pg_catalog.pg_constraint k"
    "  WHERE r.classid = 'pg_catalog.pg_type'::regclass AND k.contypid = r.objid"
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_type'::regclass, x.oid FROM pg_catalog.pg_type t CROSS JOIN LATERAL ("
    "   SELECT t.typbasetype AS oid UNION ALL SELECT t.typelem"
    "   UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid"
    "   UNION ALL SELECT g.rngtypid FROM pg_catalog.pg_range g WHERE g.rngmultitypid = t.oid"
    "   UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid"
    "   AND a.attnum > 0 AND NOT a.attisdropped) x"
    "  WHERE r.classid = 'pg_catalog.pg_type'::regclass AND t.oid = r.objid AND x.oid <> 0"
    "  UNION ALL"
    "  SELECT 'pg_catalog.pg_proc'::regclass, x.oid FROM pg_catalog.pg_type t CROSS JOIN LATERAL ("
    "   SELECT t.typinput AS oid UNION ALL SELECT t.typoutput"
    "   UNION ALL SELECT g.rngcanonical FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid"
    "   UNION ALL SELECT k.castfunc FROM pg_catalog.pg_cast k WHERE k.castsource = t.oid"
    "   AND k.casttarget = 'pg_catalog.json'::regtype) x"
    "  WHERE r.classid = 'pg_catalog.pg_type'::regclass AND t.oid = r.objid"
    " ) next"
    "), body (text) AS ("
    " SELECT p.prosqlbody::text FROM reached r JOIN pg_catalog.pg_proc p ON p.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_proc'::regclass AND p.prosqlbody IS NOT NULL"
    " UNION ALL"
    " SELECT w.ev_action::text FROM reached r JOIN pg_catalog.pg_rewrite w ON w.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_rewrite'::regclass"
    " UNION ALL"
    " SELECT y.polqual::text FROM reached r JOIN pg_catalog.pg_policy y ON y.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_policy'::regclass AND y.polqual IS NOT NULL"
    " UNION ALL"
    " SELECT k.conbin::text FROM reached r JOIN pg_catalog.pg_constraint k ON k.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_constraint'::regclass AND k.conbin IS NOT NULL"
    "), builtin (class, oid) AS ("
    " SELECT DISTINCT m[1], m[2]::oid FROM body"
    " CROSS JOIN LATERAL regexp_matches(body.text, ':(relid|funcid) (\\d+)', 'g') m"
    "), base (oid) AS ("
    " SELECT c.oid FROM reached r JOIN pg_catalog.pg_class c ON c.oid = r.objid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE r.classid = 'pg_catalog.pg_class'::regclass"
    " AND (c.relkind IN ('r', 'p', 'f', 'm', 'S') OR c.relkind = 'v' AND " SQL_IS_SYSTEM ")"
    " UNION"
    " SELECT b.oid FROM builtin b JOIN pg_catalog.pg_class c ON c.oid = b.oid"
    " WHERE b.class = 'relid' AND c.relnamespace = 'pg_catalog'::regnamespace"
    "), " SQL_ROOTS("base") ", opaque (oid) AS ("
    " SELECT p.oid FROM reached r JOIN pg_catalog.pg_proc p ON p.oid = r.objid"
    " JOIN pg_catalog.pg_language l ON l.oid = p.prolang"
    " WHERE r.classid = 'pg_catalog.pg_proc'::regclass AND p.prosqlbody IS NULL"
    " AND p.provolatile <> 'i' AND p.pronamespace <> 'pg_catalog'::regnamespace"
    /* Our own, which reads nothing. */
    " AND NOT (p.proname = 'fail' AND p.proargtypes = '23 25' AND p.pronamespace IN"
    "  (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'provost'))"
    " AND NOT (l.lanname IN ('c', 'internal') AND EXISTS ("
    "  SELECT FROM pg_catalog.pg_depend d"
    "  JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid"
    "  WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'"
    "  AND d.refclassid = 'pg_catalog.pg_extension'::regclass"
    "  AND x.extname IN (" HARMLESS_EXTENSIONS ")))"
    " UNION"
    " SELECT p.oid FROM builtin b JOIN pg_catalog.pg_proc p ON p.oid = b.oid"
    " WHERE b.class = 'funcid' AND p.pronamespace = 'pg_catalog'::regnamespace"
    " AND p.proname IN (" READING_BUILTINS ")"
    " AND p.oid <> 'pg_catalog.ts_rewrite(tsquery,tsquery,tsquery)'::regprocedure"
    "), meaning (text) AS ("
    " SELECT text FROM body UNION ALL"
    " SELECT p.prosrc FROM reached r JOIN pg_catalog.pg_proc p ON p.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_proc'::regclass"
    ")"
    " SELECT 'table', c.oid, " SQL_TAG_NAME ", " SQL_IS_SYSTEM ", ''"
    " FROM (SELECT DISTINCT oid FROM root) root"
    " JOIN pg_catalog.pg_class c ON c.oid = root.oid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " UNION ALL"
    " SELECT 'function', o.oid, o.oid::regprocedure::text, false, '' FROM opaque o"
    " UNION ALL"
    " SELECT 'publish', p.oid, '', false, '' FROM reached r JOIN pg_catalog.pg_proc p ON p.oid = r.objid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    " WHERE r.classid = 'pg_catalog.pg_proc'::regclass"
    " AND n.nspname = 'provost' AND p.proname = 'publish'"
    " UNION ALL"
    " SELECT 'relation', c.oid, c.oid::regclass::text, false, " SQL_MEANING_OF_RELATION
    " FROM reached r JOIN pg_catalog.pg_class c ON c.oid = r.objid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE r.classid = 'pg_catalog.pg_class'::regclass"
    " AND c.relkind IN ('r', 'p', 'f', 'v') AND NOT " SQL_IS_SYSTEM
    " UNION ALL"
    " SELECT 'routine', p.oid, p.oid::regprocedure::text, false, " SQL_MEANING_OF_ROUTINE
    " FROM reached r JOIN pg_catalog.pg_proc p ON p.oid = r.objid"
    " WHERE r.classid = 'pg_catalog.pg_proc'::regclass"
    " AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, pg_my_temp_schema())"
    " UNION ALL"
    " SELECT 'meaning', 0, md5(string_agg(md5(text), '' ORDER BY md5(text))), false, '' FROM meaning"
    " ORDER BY 1, 2";
/* clang-format on */

static void add_table(struct discovered *d, const PGresult *r, int i)
{
	d->table = xrealloc(d->table, d->tables + 1, sizeof *d->table);
	d->table[d->tables++] = (struct discovered_table){
	    .oid = (pg_oid)strtoul(PQgetvalue(r, i, 1), NULL, 10),
	    .name = xstrdup(PQgetvalue(r, i, 2)),
	    .system = *PQgetvalue(r, i, 3) == 't',
	};
}

static void add_way(struct discovered *d, const PGresult *r, int i, bool routine)
{
	const char *digest = PQgetvalue(r, i, 4);
	d->way = xrealloc(d->way, d->ways + 1, sizeof *d->way);
	d->way[d->ways++] = (struct way){
	    .oid = (pg_oid)strtoul(PQgetvalue(r, i, 1), NULL, 10),
	    .routine = routine,
	    .name = xstrdup(PQgetvalue(r, i, 2)),
	    .digest = XXH3_64bits(digest, strlen(digest)),
	};
}

static void add_row(struct discovered *d, const PGresult *r, int i)
{
	const char *what = PQgetvalue(r, i, 0), *name = PQgetvalue(r, i, 2);
	if (!strcmp(what, "table")) {
		add_table(d, r, i);
	} else if (!strcmp(what, "relation") || !strcmp(what, "routine")) {
		add_way(d, r, i, !strcmp(what, "routine"));
	} else if (!strcmp(what, "function")) {
		strlist_add(&d->opaque, name, strlen(name));
	} else if (!strcmp(what, "publish")) {
		d->publishes = true;
	} else {
		_cleanup_free_ char *half = xstrndup(name, 16);
		d->meaning = strtoull(half, NULL, 16);
	}
}

/* ---- why it was refused -------------------------------------------------------------- */

static const char WHY_NOT[] =
    "/* provost */ SELECT CASE"
    " WHEN pg_is_in_recovery() THEN"
    "  'it is a standby, where nothing can be created: let [database] url name the primary'"
    " WHEN NOT has_database_privilege(current_database(), 'TEMPORARY') THEN"
    "  format('run GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), current_user)"
    " WHEN NOT has_language_privilege('sql', 'USAGE') THEN"
    "  format('run GRANT USAGE ON LANGUAGE sql TO %I', current_user)"
    " END";

/* `refusal` is PostgreSQL's; the session is in no transaction. */
static int explain_failure(struct conn *c, const struct pg_result *refusal, uint64_t deadline_us,
                           struct discovered *ret)
{
	_cleanup_result_ struct pg_result *result = NULL;
	int r = conn_command(c, WHY_NOT, deadline_us, &result);
	if (r < 0)
		return r;
	const PGresult *why = (const PGresult *)result;
	const char *message =
	    PQresultErrorField((const PGresult *)refusal, PG_DIAG_MESSAGE_PRIMARY);
	bool known = PQntuples(why) == 1 && !PQgetisnull(why, 0, 0);
	ret->failure = xasprintf("PostgreSQL does not tell what it reads (%s)%s%s",
	                         message ? message : "no reason given", known ? ": " : "",
	                         known ? PQgetvalue(why, 0, 0) : "");
	return 0;
}

/* ---- asking -------------------------------------------------------------------------- */

/* In a transaction of its own, which is left open: what the body depends on, or the refusal. The
 * walk is long to plan, so it is kept prepared. */
static int ask(struct conn *c, const char *create, uint64_t deadline_us, struct pg_result **ret)
{
	static const char begin[] = "/* provost */ BEGIN READ WRITE";
	struct stmt walk = {.sql = (char *)(uintptr_t)WALK, .sql_len = sizeof WALK - 1};
	int r = conn_command(c, begin, deadline_us, ret);
	if (r < 0 || *conn_sqlstate(*ret))
		return r;
	conn_result_free(ret);
	r = conn_command(c, create, deadline_us, ret);
	if (r < 0 || *conn_sqlstate(*ret))
		return r;
	conn_result_free(ret);
	stmt_seal(&walk);
	return conn_run(c, &walk, NULL, deadline_us, NULL, ret);
}

int discover(struct conn *c, const struct stmt *s, uint64_t deadline_us, struct discovered *ret)
{
	*ret = (struct discovered){0};
	if (s->binds > ARGUMENTS_MAX) {
		ret->failure = xasprintf("PostgreSQL tells what a statement reads only where that "
		                         "has at most %d parameters: use fewer",
		                         ARGUMENTS_MAX);
		return 0;
	}
	_cleanup_free_ char *create = function_text(s);
	_cleanup_result_ struct pg_result *found = NULL, *end = NULL;
	int r = ask(c, create, deadline_us, &found);
	if (r == 0)
		r = conn_command(c, "/* provost */ ROLLBACK", deadline_us, &end);
	if (r < 0)
		return r;
	if (*conn_sqlstate(found))
		return explain_failure(c, found, deadline_us, ret);
	for (int i = 0; i < PQntuples((const PGresult *)found); i++)
		add_row(ret, (const PGresult *)found, i);
	return 0;
}

void discovered_done(struct discovered *d)
{
	for (size_t i = 0; i < d->tables; i++)
		free(d->table[i].name);
	free(d->table);
	for (size_t i = 0; i < d->ways; i++)
		free(d->way[i].name);
	free(d->way);
	free(d->failure);
	strlist_done(&d->opaque);
	*d = (struct discovered){0};
}
