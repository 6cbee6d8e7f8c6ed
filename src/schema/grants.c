#include "grants.h"

#include <errno.h>
#include <string.h>

#include "admin.h"
#include "provost/buf.h"
#include "provost/catalog.h"

/* What is granted, each once: the SQL behind GRANT, before TO. Of relations with the right. */
struct grants {
	struct strlist schemas, relations, functions;
};

static void grants_done(struct grants *g)
{
	strlist_done(&g->schemas);
	strlist_done(&g->relations);
	strlist_done(&g->functions);
}

static void add(struct strlist *l, const char *text)
{
	if (!strlist_has(l, text))
		strlist_add(l, text, strlen(text));
}

/* ---- what a statement reaches -------------------------------------------------------- */

/* As a function's body, for which PostgreSQL notes what it depends on; $1 are the statement's own.
 * The newline ends a line comment that the statement may end in. */
static int create(struct admin *a, const struct endpoint *e, struct errors *errs)
{
	_cleanup_buf_ struct buf oids = {0}, sql = {0};
	_cleanup_pgresult_ PGresult *types = NULL;
	_cleanup_free_ char *what =
	    xasprintf("%s:%u: what it needs cannot be found out", e->file, e->sql_line);

	for (size_t i = 0; i < e->stmt.binds; i++)
		buf_addf(&oids, "%s%u", i ? "," : "{", e->stmt.oid[i]);
	buf_adds(&oids, e->stmt.binds ? "}" : "{}");
	buf_addc(&oids, '\0');
	ALWAYS(!oids.failed);
	const char *const values[] = {oids.data};
	types = admin_query(a, what,
	                    "/* provost */ SELECT coalesce(string_agg(format_type(o, NULL), ', '"
	                    " ORDER BY n), '') FROM unnest($1::oid[]) WITH ORDINALITY u(o, n)",
	                    1, values, errs);
	if (!types)
		return -EINVAL;
	buf_addf(
	    &sql,
	    "/* provost */ CREATE FUNCTION pg_temp.provost_statement(%s) RETURNS void LANGUAGE sql"
	    " BEGIN ATOMIC ",
	    PQgetvalue(types, 0, 0));
	buf_add(&sql, e->stmt.sql, e->stmt.sql_len);
	buf_adds(&sql, "\n; END");
	buf_addc(&sql, '\0');
	ALWAYS(!sql.failed);
	int r = admin_run(a, what, ADMIN_USERS_PATH, errs);
	PGresult *done = r == 0 ? admin_query(a, what, sql.data, 0, NULL, errs) : NULL;
	PQclear(done);
	return done ? 0 : -EINVAL;
}

/* Rows: what (schema, relation, function, opaque), and its name as SQL, a relation's with the
 * right. Everybody's rights on PostgreSQL's own catalogues are taken for granted. $1: it is one
 * that writes.
 *
 * Which rights on a relation a statement needs PostgreSQL has noted in the parsed text, with each
 * that it names: requiredPerms, the bits of INSERT, SELECT, UPDATE, DELETE. Names that people chose
 * have their blanks escaped there, so none can look like a field. What PostgreSQL evaluates for
 * whoever writes to a table (defaults, checks, indexes) stands with the table instead; triggers do
 * too, but whose rights they have is for them to say. */
static const char REACHED[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE reached (classid, objid) AS ("
    " SELECT 'pg_proc'::regclass::oid, p.oid FROM pg_proc p"
    " WHERE p.pronamespace = pg_my_temp_schema() AND p.proname = 'provost_statement'"
    " UNION"
    " SELECT next.classid, next.objid FROM reached r CROSS JOIN LATERAL ("
    "  SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_depend d"
    "  WHERE d.classid = r.classid AND d.objid = r.objid AND d.deptype IN ('n', 'a', 'i')"
    "  AND (r.classid IN ('pg_operator'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass)"
    "   OR r.classid = 'pg_proc'::regclass"
    "   AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = r.objid AND NOT p.prosecdef))"
    "  UNION ALL"
    "  SELECT 'pg_rewrite'::regclass, w.oid FROM pg_class c"
    "  JOIN pg_rewrite w ON w.ev_class = c.oid AND w.ev_type = '1'"
    "  WHERE r.classid = 'pg_class'::regclass AND c.oid = r.objid AND c.relkind = 'v'"
    "  AND EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o"
    "   WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)"
    "  UNION ALL"
    "  SELECT 'pg_policy'::regclass, y.oid FROM pg_policy y JOIN pg_class c ON c.oid = y.polrelid"
    "  WHERE r.classid = 'pg_class'::regclass AND c.oid = r.objid AND c.relrowsecurity"
    "  AND (y.polcmd IN ('r', '*') OR $1)"
    " ) next"
    "), body (text) AS ("
    " SELECT p.prosqlbody::text FROM reached r JOIN pg_proc p ON p.oid = r.objid"
    " WHERE r.classid = 'pg_proc'::regclass AND NOT p.prosecdef"
    " UNION ALL"
    " SELECT w.ev_action::text FROM reached r JOIN pg_rewrite w ON w.oid = r.objid"
    " WHERE r.classid = 'pg_rewrite'::regclass"
    " UNION ALL"
    " SELECT concat(y.polqual, ' ', y.polwithcheck) FROM reached r JOIN pg_policy y ON y.oid = r.objid"
    " WHERE r.classid = 'pg_policy'::regclass"
    "), used AS ("
    " SELECT m[1]::oid AS oid, bit_or(m[2]::integer) AS rights FROM body CROSS JOIN LATERAL regexp_matches("
    "  body.text, ':relid (\\d+) (?:[^:]|:(?!relid |requiredPerms ))*:requiredPerms (\\d+)', 'g') m"
    " GROUP BY 1"
    "), evaluated (classid, objid) AS ("
    " SELECT d.refclassid, d.refobjid FROM used u"
    " CROSS JOIN LATERAL ("
    "  SELECT 'pg_attrdef'::regclass::oid AS classid, a.oid FROM pg_attrdef a WHERE a.adrelid = u.oid"
    "  UNION ALL"
    "  SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k"
    "  WHERE k.conrelid = u.oid AND k.contype = 'c'"
    "  UNION ALL"
    "  SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i WHERE i.indrelid = u.oid"
    " ) o JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.oid"
    " WHERE u.rights & (1 | 4) <> 0"
    "), needed AS (SELECT * FROM reached UNION SELECT * FROM evaluated"
    "), relation AS ("
    " SELECT c.oid, c.relname, c.relkind, n.nspname, t.name AS allowed FROM used u"
    " JOIN (VALUES (1, 'INSERT'), (2, 'SELECT'), (4, 'UPDATE'), (8, 'DELETE')) t (bit, name)"
    "  ON u.rights & t.bit <> 0"
    " JOIN pg_class c ON c.oid = u.oid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " UNION"
    " SELECT c.oid, c.relname, c.relkind, n.nspname, 'USAGE' FROM needed r"
    " JOIN pg_class c ON c.oid = r.objid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE r.classid = 'pg_class'::regclass AND c.relkind = 'S' AND c.oid NOT IN (SELECT oid FROM used)"
    "), function AS ("
    " SELECT p.*, n.nspname FROM needed r JOIN pg_proc p ON p.oid = r.objid"
    " JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE r.classid = 'pg_proc'::regclass AND p.pronamespace <> pg_my_temp_schema()"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    "), operator AS ("
    " SELECT n.nspname FROM reached r JOIN pg_operator o ON o.oid = r.objid"
    " JOIN pg_namespace n ON n.oid = o.oprnamespace"
    " WHERE r.classid = 'pg_operator'::regclass AND n.nspname <> 'pg_catalog'"
    ")"
    " SELECT 'schema', quote_ident(nspname) FROM (SELECT nspname FROM relation"
    "  UNION SELECT nspname FROM function UNION SELECT nspname FROM operator) n"
    " WHERE nspname <> 'provost'"
    " UNION ALL"
    " SELECT 'relation', format('%s ON %s%I.%I', allowed,"
    "  CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END, nspname, relname) FROM relation"
    " UNION ALL"
    " SELECT 'function', format('%s %I.%I(%s)', CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,"
    "  nspname, proname, pg_get_function_identity_arguments(oid)) FROM function"
    " WHERE nspname <> 'provost' AND NOT has_function_privilege('public', oid, 'EXECUTE')"
    " UNION ALL"
    " SELECT 'opaque', proname FROM function"
    " WHERE prosqlbody IS NULL AND NOT prosecdef AND nspname <> 'provost'"
    "  AND prolang IN (SELECT oid FROM pg_language WHERE lanname NOT IN ('c', 'internal'))"
    " ORDER BY 1, 2";
/* clang-format on */

/* What a function hides from PostgreSQL its author has named in @depends. */
static int add_declared(struct admin *a, const struct endpoint *e, struct grants *g,
                        struct errors *errs)
{
	for (size_t i = 0; i < e->depends; i++) {
		const struct depend *d = &e->depend[i];
		const char *const values[] = {d->table};
		_cleanup_free_ char *what =
		    xasprintf("%s:%u: @depends %s", e->file, d->line, d->table);
		_cleanup_pgresult_ PGresult *r = NULL;

		if (d->exclude)
			continue;
		r = admin_query(a, what,
		                "/* provost */ SELECT pg_catalog.quote_ident(n.nspname),"
		                " 'SELECT ON ' || pg_catalog.quote_ident(n.nspname) || '.' ||"
		                " pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class c"
		                " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		                " WHERE c.oid = $1::pg_catalog.regclass",
		                1, values, errs);
		if (!r)
			return -EINVAL;
		add(&g->schemas, PQgetvalue(r, 0, 0));
		add(&g->relations, PQgetvalue(r, 0, 1));
	}
	return 0;
}

static int take_rows(struct admin *a, const struct endpoint *e, const PGresult *r, struct grants *g,
                     struct errors *errs)
{
	bool opaque = false;

	for (int i = 0; i < PQntuples(r); i++) {
		const char *what = PQgetvalue(r, i, 0), *name = PQgetvalue(r, i, 1);

		if (strcmp(what, "schema") == 0)
			add(&g->schemas, name);
		else if (strcmp(what, "relation") == 0)
			add(&g->relations, name);
		else if (strcmp(what, "function") == 0)
			add(&g->functions, name);
		else
			opaque = true;
	}
	return opaque ? add_declared(a, e, g, errs) : 0;
}

/* In a transaction of its own that is rolled back, so that one failure does not hide the others. */
static int find(struct admin *a, const struct endpoint *e, struct grants *g, struct errors *errs)
{
	const char *const values[] = {e->method == METHOD_GET ? "false" : "true"};
	_cleanup_pgresult_ PGresult *r = NULL;
	int err = admin_run(a, e->file, "/* provost */ BEGIN READ WRITE", errs);

	if (err == 0)
		err = create(a, e, errs);
	if (err == 0) {
		PQclear(PQexec(a->pg, ADMIN_OWN_PATH));
		r = admin_query(a, e->file, REACHED, 1, values, errs);
		PQclear(PQexec(a->pg, ADMIN_USERS_PATH));
		err = r ? take_rows(a, e, r, g, errs) : -EINVAL;
	}
	PQclear(PQexec(a->pg, "/* provost */ ROLLBACK"));
	return err;
}

/* ---- printing ------------------------------------------------------------------------ */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_list(FILE *to, const char *rights, struct strlist *l, const char *role)
{
	if (l->count > 0)
		qsort(l->item, l->count, sizeof *l->item, by_text);
	for (size_t i = 0; i < l->count; i++)
		fprintf(to, "GRANT %s%s TO %s;\n", rights, l->item[i], role);
}

static void print(FILE *to, const char *database, const char *role, const char *role_text,
                  struct grants *g)
{
	fprintf(
	    to,
	    "-- What the role that Provost's server runs as needs, and no more. Run this as the\n"
	    "-- owner of the database; again when endpoints have changed. The role gets no "
	    "password\n"
	    "-- here: in psql, `\\password ROLE` sets one without showing it.\n"
	    "DO $provost$ BEGIN\n"
	    "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s) THEN\n"
	    "        CREATE ROLE %s LOGIN;\n"
	    "    END IF;\n"
	    "END $provost$;\n\n"
	    "-- TEMPORARY: to find out what a statement reads, in a transaction that is rolled "
	    "back.\n"
	    "GRANT CONNECT, TEMPORARY ON DATABASE %s TO %s;\n\n"
	    "-- API keys, and revocations, which administrators make and take back.\n"
	    "GRANT USAGE ON SCHEMA provost TO %s;\n"
	    "GRANT SELECT ON provost.api_key TO %s;\n"
	    "GRANT SELECT, INSERT, UPDATE, DELETE ON provost.revocation TO %s;\n\n"
	    "-- What SQL publishes: to publish, to know that it was published, and to hand over "
	    "what is kept.\n"
	    "GRANT EXECUTE ON FUNCTION provost.publish(text, text, jsonb) TO %s;\n"
	    "GRANT SELECT ON provost.event_key TO %s;\n"
	    "GRANT SELECT, DELETE ON provost.outbox TO %s;\n\n"
	    "-- What the endpoints read and write.\n",
	    role_text, role, database, role, role, role, role, role, role, role);
	print_list(to, "USAGE ON SCHEMA ", &g->schemas, role);
	print_list(to, "", &g->relations, role);
	print_list(to, "EXECUTE ON ", &g->functions, role);
}

int grants_print(struct admin *a, const struct catalog *catalog, const char *role, FILE *to,
                 struct errors *errs)
{
	static const char NAMES[] = "/* provost */ SELECT quote_ident(current_database()), "
	                            "quote_ident($1), quote_literal($1),"
	                            " to_regclass('provost.api_key') IS NOT NULL"
	                            " AND to_regclass('provost.event_key') IS NOT NULL";
	const char *const values[] = {role};
	_cleanup_(grants_done) struct grants g = {.schemas = {NULL}};
	_cleanup_pgresult_ PGresult *names =
	    admin_query(a, "the grants cannot be printed", NAMES, 1, values, errs);
	bool good = names != NULL;

	if (names && *PQgetvalue(names, 0, 3) != 't') {
		errors_add(
		    errs, NULL, 0,
		    "the schema `provost` is not in the database, or of an earlier version: run "
		    "`provost schema install` first");
		good = false;
	}
	for (size_t i = 0; names && i < catalog->endpoints; i++)
		good = find(a, catalog->endpoint[i], &g, errs) == 0 && good;
	if (!good)
		return -EINVAL;
	print(to, PQgetvalue(names, 0, 0), PQgetvalue(names, 0, 1), PQgetvalue(names, 0, 2), &g);
	return 0;
}
