#include <errno.h>

/* Nothing here needs the relay. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "real_pg.h"

#include "provost/buf.h"
#include "provost/catalog.h"
#include "provost/conn.h"
#include "provost/engine.h"
#include "provost/log.h"

static char *app_url;

/* ---- what the statements read -------------------------------------------------------- */

static const char SCHEMA[] =
    "CREATE SCHEMA td; CREATE SCHEMA \"Odd.Schema\"; SET search_path = td, public;"
    "CREATE EXTENSION pg_trgm SCHEMA public; CREATE EXTENSION tablefunc SCHEMA public;"
    "CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION hstore SCHEMA public;"
    "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
    "CREATE TABLE a (id text PRIMARY KEY, n integer, s smallint, b bigint, v varchar(9), u uuid,"
    " m numeric, f text COLLATE folding, \"ownerId\" text, \"UPPER\" text, upper integer);"
    "CREATE TABLE b (id text, n integer); CREATE TABLE rights (id text);"
    "CREATE TABLE public.plain (id text); CREATE TABLE \"Odd.Schema\".\"Ta.ble\" (\"Co.l\" text);"
    /* Trees. */
    "CREATE TABLE part (k integer, id text) PARTITION BY LIST (k);"
    "CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);"
    "CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2) PARTITION BY LIST (id);"
    "CREATE TABLE part_2x PARTITION OF part_2 FOR VALUES IN ('x');"
    "CREATE TABLE parent (id text); CREATE TABLE child (own text) INHERITS (parent);"
    "CREATE TABLE mother (id text); CREATE TABLE father (id text, x text);"
    "CREATE TABLE kid () INHERITS (mother, father);"
    /* Other relations. */
    "CREATE VIEW v1 AS SELECT id FROM a; CREATE VIEW v2 AS SELECT v1.id FROM v1, b;"
    "CREATE MATERIALIZED VIEW mv AS SELECT id FROM a; CREATE SEQUENCE seq;"
    "CREATE VIEW v_system AS SELECT relname::text FROM pg_class;"
    "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
    "CREATE FOREIGN TABLE far (id text) SERVER files OPTIONS (filename '/dev/null');"
    /* Functions. */
    "CREATE FUNCTION f_atomic() RETURNS bigint LANGUAGE sql STABLE"
    " BEGIN ATOMIC SELECT count(*) FROM b; END;"
    "CREATE FUNCTION f_outer() RETURNS bigint LANGUAGE sql STABLE RETURN f_atomic() + 1;"
    "CREATE FUNCTION f_string() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM td.b';"
    "CREATE FUNCTION f_pl() RETURNS integer LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';"
    "CREATE FUNCTION f_pl(text) RETURNS boolean LANGUAGE plpgsql STABLE"
    " AS 'BEGIN RETURN true; END';"
    "CREATE FUNCTION f_pure(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE"
    " AS 'BEGIN RETURN $1; END';"
    "CREATE FUNCTION f_default(x integer DEFAULT f_pl()) RETURNS integer LANGUAGE sql IMMUTABLE"
    " RETURN x;"
    "CREATE FUNCTION f_rows() RETURNS SETOF a LANGUAGE plpgsql IMMUTABLE AS 'BEGIN END';"
    "CREATE SCHEMA provost;"
    "CREATE FUNCTION provost.fail(integer, text) RETURNS void LANGUAGE plpgsql"
    " AS 'BEGIN RAISE EXCEPTION ''told''; END';"
    "CREATE FUNCTION provost.fail(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE FUNCTION provost.other(integer, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE FUNCTION fail(integer, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE VIEW v_function AS SELECT f_pl() AS n FROM a;"
    "CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE plpgsql STABLE"
    " AS 'BEGIN RETURN true; END';"
    "CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);"
    "CREATE FUNCTION in_b(text, text) RETURNS boolean LANGUAGE sql STABLE"
    " RETURN EXISTS (SELECT FROM b WHERE id = $1);"
    "CREATE OPERATOR =?= (FUNCTION = in_b, LEFTARG = text, RIGHTARG = text);"
    "CREATE FUNCTION step(integer, integer) RETURNS integer LANGUAGE plpgsql STABLE"
    " AS 'BEGIN RETURN 1; END';"
    "CREATE AGGREGATE any_of (integer) (SFUNC = step, STYPE = integer);"
    "CREATE DOMAIN fine AS text CHECK (f_pl(VALUE)); CREATE DOMAIN finer AS fine;"
    "CREATE DOMAIN known AS text CHECK (in_b(VALUE, '')); CREATE TYPE pair AS (x finer, y text);"
    "CREATE TYPE tone AS (hertz integer); CREATE TABLE tones (tone tone);"
    "CREATE FUNCTION spell(tone) RETURNS json LANGUAGE plpgsql STABLE"
    " AS 'BEGIN RETURN ''{}''; END';"
    "CREATE CAST (tone AS json) WITH FUNCTION spell (tone);"
    "CREATE TYPE span AS RANGE (SUBTYPE = integer); CREATE TABLE spans (span span);"
    "CREATE DOMAIN plain_text AS text CHECK (VALUE <> '');"
    /* Policies. */
    "CREATE TABLE guarded (id text); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY reads ON guarded FOR SELECT USING (EXISTS (SELECT FROM rights r WHERE r.id ="
    " guarded.id));"
    "CREATE POLICY writes ON guarded FOR INSERT WITH CHECK (f_pl(id));"
    "CREATE TABLE hidden (id text); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY reads ON hidden USING (f_pl(id));"
    "CREATE VIEW v_guarded AS SELECT id FROM guarded;"
    "CREATE TABLE unguarded (id text); CREATE POLICY reads ON unguarded USING (f_pl(id));"
    "CREATE TABLE busy (id text DEFAULT f_pl()::text CHECK (f_pl(id)));"
    "GRANT USAGE ON SCHEMA td, provost, \"Odd.Schema\" TO PUBLIC;"
    "GRANT SELECT ON ALL TABLES IN SCHEMA td, public, \"Odd.Schema\" TO PUBLIC;"
    "GRANT SELECT ON SEQUENCE seq TO PUBLIC";

static void create_objects(void)
{
	app_url = pg_with(getenv("PROVOST_TEST_APP_DSN"), "options=-c%20search_path%3Dtd,public");
	pg_open();
	pg_ask("SET client_min_messages = error");
	pg_ask(SCHEMA);
	pg_close();
}

static void forget_url(void)
{
	free(app_url);
}

static void setup(void)
{
	/* Warnings are expected; their text is in `opaque`. */
	log_set_level(LOG_LEVEL_ERROR);
	pg_open();
}

/* ---- asking -------------------------------------------------------------------------- */

#define ROUTE "-- @route GET /x\n"
#define ID    ROUTE "-- @query id text\n"
#define READ  ROUTE "-- @depends "

static struct endpoint *parse(const char *text, size_t number)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	char file[32];
	snprintf(file, sizeof file, "%zu.sql", number);
	struct endpoint *e = endpoint_parse("x", file, text, strlen(text), errs);
	ck_assert_msg(e, "%s\n%s", text, errors_text(errs, 0));
	return e;
}

static void describe(struct endpoint **e, size_t n, struct errors *errs)
{
	struct catalog c = {.endpoint = e, .endpoints = n};
	int r = engine_describe(&c, app_url, true, -1, clock_us() + 60000000, errs);
	ck_assert_int_eq(r, errors_count(errs) ? -EINVAL : 0);
}

/* What follows the file's name in its first error, or NULL. */
static const char *error_of(const struct endpoint *e, const struct errors *errs)
{
	const char *text;
	for (size_t i = 0; (text = errors_text(errs, i)); i++)
		if (!strncmp(text, e->file, strlen(e->file)))
			return text + strlen(e->file);
	return NULL;
}

/* `a, b(id=:id)`, `opaque: why` or `:2: what is wrong`. */
static char *found(const struct endpoint *e, const struct errors *errs)
{
	struct buf b = {0};
	size_t len;
	const char *error = error_of(e, errs);
	if (error || e->opaque) {
		buf_addf(&b, "%s%s", error ? "" : "opaque: ", error ? error : e->opaque);
		return buf_take(&b, &len);
	}
	for (size_t i = 0; i < e->dependencies; i++) {
		const struct dependency *d = &e->dependency[i];
		buf_addf(&b, "%s%s", i ? ", " : "", d->table);
		if (d->column)
			buf_addf(&b, "(%s=:%s)", d->column, e->param[d->param].name);
	}
	return buf_take(&b, &len);
}

struct example {
	const char *text, *expected; /* one that ends in `…` is the beginning */
};

static bool is_as_expected(const char *is, const char *expected)
{
	static const char MORE[] = "…";
	size_t n = strlen(expected), more = sizeof MORE - 1;
	if (n >= more && !strcmp(expected + n - more, MORE))
		return !strncmp(is, expected, n - more);
	return !strcmp(is, expected);
}

/* All in one catalogue, so that what one leaves behind would show in the next. */
static void check(const struct example *x, size_t n)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_free_ struct endpoint **e = xcalloc(n, sizeof(struct endpoint *));
	unsigned wrong = 0;
	for (size_t i = 0; i < n; i++)
		e[i] = parse(x[i].text, i);
	describe(e, n, errs);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *is = found(e[i], errs);
		endpoint_free(&e[i]);
		if (is_as_expected(is, x[i].expected))
			continue;
		printf("%s\nfound:    %s\nexpected: %s\n", x[i].text, is, x[i].expected);
		wrong++;
	}
	ck_assert_uint_eq(wrong, 0);
}

static void check_one(const char *text, const char *expected)
{
	const struct example x = {text, expected};
	check(&x, 1);
}

/* ---- tables -------------------------------------------------------------------------- */

static const struct example TABLES[] = {
    {ROUTE "SELECT 1", ""},
    {ROUTE "SELECT a.id FROM a JOIN b USING (id)", "td.a, td.b"},
    {ROUTE "SELECT a.id FROM plain, a", "plain, td.a"},
    {ROUTE "SELECT * FROM \"Odd.Schema\".\"Ta.ble\"", "Odd.Schema.Ta.ble"},
    {ROUTE "SELECT x.id FROM a x, a y", "td.a"},
    {ROUTE "TABLE b", "td.b"},
    {ROUTE "VALUES (1)", ""},
    /* Where plans show nothing. */
    {ROUTE "SELECT (SELECT id FROM a LIMIT 1) WHERE false", "td.a"},
    {ROUTE "SELECT 1 FROM a WHERE false AND EXISTS (SELECT FROM b)", "td.a, td.b"},
    {ROUTE "SELECT id FROM part WHERE k = 3", "td.part"},
    {ROUTE "SELECT a.id FROM a LEFT JOIN b ON false", "td.a, td.b"},
    {ROUTE "WITH unused AS (SELECT * FROM b) SELECT id FROM a", "td.a, td.b"},
    {ROUTE "SELECT CASE WHEN true THEN 1 ELSE (SELECT n FROM b) END", "td.b"},
    /* Where else a table may stand. */
    {ROUTE "WITH c AS MATERIALIZED (SELECT * FROM b) SELECT * FROM c", "td.b"},
    {ROUTE "WITH RECURSIVE c (id) AS (SELECT id FROM a UNION SELECT b.id FROM b, c)"
           " SELECT * FROM c",
     "td.a, td.b"},
    {ROUTE "SELECT 1 WHERE EXISTS (SELECT FROM a) AND 1 IN (SELECT n FROM b)", "td.a, td.b"},
    {ROUTE "SELECT x.n FROM a, LATERAL (SELECT n FROM b WHERE b.id = a.id) x", "td.a, td.b"},
    {ROUTE "SELECT id FROM a UNION ALL SELECT id FROM b ORDER BY 1 LIMIT (SELECT 1 FROM plain)",
     "plain, td.a, td.b"},
    {ROUTE "SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM b)) FROM a HAVING EXISTS"
           " (SELECT FROM plain)",
     "plain, td.a, td.b"},
    {ROUTE "SELECT id FROM a TABLESAMPLE system (10)", "td.a"},
    {ROUTE "SELECT ARRAY(SELECT id FROM a), row_number() OVER (ORDER BY (SELECT 1 FROM b))",
     "td.a, td.b"},
    /* Views and trees. */
    {ROUTE "SELECT * FROM v1", "td.a"},
    {ROUTE "SELECT * FROM v2", "td.a, td.b"},
    {ROUTE "SELECT * FROM mv", "td.mv"},
    {ROUTE "SELECT * FROM far", "td.far"},
    {ROUTE "SELECT last_value FROM seq", "td.seq"},
    {ROUTE "SELECT * FROM part_1", "td.part"},
    {ROUTE "SELECT * FROM part_2x", "td.part"},
    {ROUTE "SELECT p.id FROM part_2, part p", "td.part"},
    {ROUTE "SELECT * FROM child", "td.parent"},
    {ROUTE "SELECT * FROM ONLY parent", "td.parent"},
    {ROUTE "SELECT * FROM kid", "td.father, td.mother"},
    {ROUTE "SELECT * FROM mother", "td.father, td.mother"},
    /* Policies. */
    {ROUTE "SELECT * FROM guarded", "td.guarded, td.rights"},
    {ROUTE "SELECT * FROM v_guarded", "td.guarded, td.rights"},
    {ROUTE "SELECT * FROM hidden", "opaque: PostgreSQL does not know what f_pl(text) reads…"},
    {ROUTE "SELECT * FROM unguarded", "td.unguarded"},
    {ROUTE "SELECT * FROM busy", "td.busy"},
    /* PostgreSQL's own. */
    {ROUTE "SELECT relname FROM pg_class", "opaque: it reads pg_catalog.pg_class, of whose…"},
    {ROUTE "SELECT pid FROM pg_stat_activity", "opaque: it reads pg_catalog.pg_stat_activity…"},
    {ROUTE "SELECT table_name::text FROM information_schema.tables",
     "opaque: it reads information_schema.tables…"},
    {ROUTE "SELECT * FROM v_system", "opaque: it reads pg_catalog.pg_class…"},
    {ROUTE "-- @depends !pg_class\nSELECT relname FROM pg_class, a", "td.a"},
    {ROUTE "-- @depends pg_class\nSELECT 1", "opaque: it reads pg_catalog.pg_class…"},
    {ROUTE "SELECT ':relid 1259' AS \":relid 1259\" FROM a \":relid 1259 \"", "td.a"},
};

START_TEST(tables)
{
	check(TABLES, ELEMENTSOF(TABLES));
}
END_TEST

/* ---- functions ----------------------------------------------------------------------- */

#define HIDES(f) "opaque: PostgreSQL does not know what " f " reads…"

static const struct example FUNCTIONS[] = {
    {ROUTE "SELECT f_atomic()", "td.b"},
    {ROUTE "SELECT f_outer() FROM a", "td.a, td.b"},
    {ROUTE "SELECT f_string()", HIDES("f_string()")},
    {ROUTE "SELECT f_pl()", HIDES("f_pl()")},
    {ROUTE "SELECT f_pl(), f_string() FROM a", HIDES("f_string() (and 1 more)")},
    {ROUTE "SELECT f_pure(1) FROM a", "td.a"},
    {ROUTE "SELECT f_default()", HIDES("f_pl()")},
    /* What a table's rows are of is not told from the table. */
    {ROUTE "SELECT * FROM f_rows()", "td.a"},
    {ROUTE "SELECT n FROM v_function", HIDES("f_pl()")},
    {ROUTE "SELECT any_of(n) FROM b", HIDES("step(integer,integer)")},
    {ID "SELECT 1 WHERE :id === 'x'", HIDES("same(text,text)")},
    {ID "SELECT 1 WHERE :id =?= 'x'", "td.b"},
    {ID "SELECT 1 WHERE :id = ANY (ARRAY['x']) AND :id OPERATOR(td.=?=) 'y'", "td.b"},
    {ROUTE "SELECT 1 WHERE false AND f_pl() = 1", HIDES("f_pl()")},
    /* Provost's own, and what is called likewise. */
    {ROUTE "SELECT CASE WHEN id IS NULL THEN provost.fail(404, id)::text END FROM a", "td.a"},
    {ROUTE "SELECT provost.fail('')::text", HIDES("provost.fail(text)")},
    {ROUTE "SELECT provost.other(404, '')::text", HIDES("provost.other(integer,text)")},
    {ROUTE "SELECT td.fail(404, '')::text", HIDES("fail(integer,text)")},
    /* Types. */
    {ID "SELECT (:id::fine)::text AS t", HIDES("f_pl(text)")},
    {ID "SELECT (:id::finer)::text AS t", HIDES("f_pl(text)")},
    {ID "SELECT (ARRAY[:id]::finer[])::text AS t", HIDES("f_pl(text)")},
    {ID "SELECT (:id::known)::text AS t", "td.b"},
    {ID "SELECT (:id::plain_text)::text AS t", ""},
    {ROUTE "SELECT x::text FROM json_populate_record(NULL::pair, '{}') x", HIDES("f_pl(text)")},
    {ROUTE "SELECT id FROM json_populate_record(NULL::b, '{}')", "td.b"},
    /* json functions look for casts. */
    {ROUTE "SELECT row_to_json(t) FROM tones t", HIDES("spell(tone)")},
    {ROUTE "SELECT json_build_object('x', NULL::tone)", HIDES("spell(tone)")},
    {ROUTE "SELECT lower(span), lower('[1,2]'::span) AS x, span(1, 2)::text FROM spans",
     "td.spans"},
    /* Of extensions. */
    {ID "SELECT :id::citext, (:id::hstore -> 'x') || 'x' AS x", ""},
    {ID "SELECT row_to_json(x) FROM (SELECT :id::hstore) x", ""},
    {ID "SELECT id FROM a WHERE id % :id", "td.a"},
    {ROUTE "SELECT * FROM crosstab('SELECT id, id, n FROM td.a') AS c (id text, x integer)",
     HIDES("crosstab(text)")},
    /* PostgreSQL's own that read what a text says. */
    {ROUTE "SELECT query_to_xml('SELECT * FROM td.a', false, false, '')::text",
     HIDES("query_to_xml(text,boolean,boolean,text)")},
    {ROUTE "SELECT word FROM ts_stat('SELECT to_tsvector(id) FROM td.a')", HIDES("ts_stat(text)")},
    {ROUTE "SELECT ts_rewrite('a'::tsquery, 'a'::tsquery, 'b'::tsquery)::text", ""},
    {ROUTE "SELECT now(), current_setting('TimeZone'), 'a'::regclass::text", "td.a"},
    /* The author's answer. */
    {READ "b\nSELECT f_string()", "td.b"},
    {READ "b\nSELECT f_pl(), f_string() FROM a", "td.a, td.b"},
    {ID "-- @depends b(id=:id)\nSELECT f_string(), :id", "td.b(id=:id)"},
    {READ "!a\nSELECT f_pl() FROM a", HIDES("f_pl()")},
};

START_TEST(functions)
{
	check(FUNCTIONS, ELEMENTSOF(FUNCTIONS));
}
END_TEST

/* ---- parameters ---------------------------------------------------------------------- */

#define ALL_TYPES                                                                                  \
	ROUTE "-- @query a text\n-- @query b integer\n-- @query c bigint\n-- @query d number\n"    \
	      "-- @query e numeric\n-- @query f boolean\n-- @query g uuid\n-- @query h date\n"     \
	      "-- @query i timestamp\n-- @query j json\n-- @query aa text[]\n"                     \
	      "-- @query bb integer[]\n-- @query cc bigint[]\n-- @query dd number[]\n"             \
	      "-- @query ee numeric[]\n-- @query ff boolean[]\n-- @query gg uuid[]\n"              \
	      "-- @query hh date[]\n-- @query ii timestamp[]\n-- @query jj json[]\n"

static const struct example PARAMETERS[] = {
    {ALL_TYPES "SELECT json_build_array(:a || 'x', :b % 2, :c % 2, :d / 2, :e / 2, NOT :f, :g = u,"
               " :h + 1, date_trunc('day', :i), :j -> 'x', :aa || 'x'::text, :bb, :cc, :dd, :ee,"
               " :ff, u = ANY (:gg), :hh, :ii, jsonb_array_length(:jj[1])) FROM a",
     "td.a"},
    {ID "SELECT '$1' || E'\\'$1' || $$ $1 $$ || \"$1\" AS t FROM (SELECT :id AS \"$1\", n FROM a) x"
        " /* $1 ); */ -- $1",
     "td.a"},
    {ROUTE "SELECT id FROM a -- the end", "td.a"},
    {ROUTE "SELECT id FROM a; -- the end\n/* of it */", "td.a"},
    {ROUTE "SELECT id FROM (SELECT a.id, b.id AS x, b.n, a.n FROM a, b) q (id, x, y, z)",
     "td.a, td.b"},
    {ROUTE "-- @returns json\nSELECT '1'::json FROM (SELECT 1, 1, a.n, b.n FROM a, b) q",
     "td.a, td.b"},
    {ROUTE "-- @query n integer\nSELECT id FROM a ORDER BY :n LIMIT :n OFFSET :n", "td.a"},
    {ROUTE "-- @query n bigint\nSELECT id FROM a WHERE b = :n AND now() > now() - '1 day'::interval"
           " * :n",
     "td.a"},
    {ID "SELECT id FROM a WHERE id = (SELECT :id) AND :id NOT IN (SELECT id FROM b)", "td.a, td.b"},
};

START_TEST(parameters)
{
	check(PARAMETERS, ELEMENTSOF(PARAMETERS));
}
END_TEST

/* ---- @depends ------------------------------------------------------------------------ */

#define NUMBER ROUTE "-- @query n integer\n"
#define FROM_A "\nSELECT id FROM a WHERE :id IS NULL"

static const struct example DEPENDS[] = {
    {READ "b\nSELECT id FROM a", "td.a, td.b"},
    {READ "a\nSELECT id FROM a", "td.a"},
    {READ "!a\nSELECT a.id FROM a, b", "td.b"},
    {READ "!b\nSELECT id FROM a", "td.a"}, /* a warning */
    {READ "td.b, public.plain\nSELECT id FROM a", "plain, td.a, td.b"},
    {READ "\"Odd.Schema\".\"Ta.ble\"\nSELECT id FROM a", "Odd.Schema.Ta.ble, td.a"},
    {READ "A\nSELECT id FROM a", "td.a"},
    {READ "\"A\"\nSELECT id FROM a", ":2: @depends \"A\": PostgreSQL knows no table…"},
    {READ "nothing\nSELECT id FROM a", ":2: @depends nothing: PostgreSQL knows no table…"},
    {READ "nowhere.a\nSELECT id FROM a", ":2: @depends nowhere.a: PostgreSQL knows no…"},
    {READ "!nothing\nSELECT id FROM a", ":2: @depends nothing: PostgreSQL knows no table…"},
    {READ "v1\nSELECT id FROM v1", ":2: @depends v1: that is no table; of a view name…"},
    {READ "!v1\nSELECT id FROM v1", ":2: @depends v1: that is no table; of a view name…"},
    {READ "a_pkey\nSELECT id FROM a", ":2: @depends a_pkey: that is no table…"},
    /* Trees. */
    {READ "part_2x\nSELECT id FROM part_1", "td.part"},
    {READ "kid\nSELECT 1", "td.father, td.mother"},
    {READ "!part_1\nSELECT id FROM part", ""},
    {ID "-- @depends part_2(id=:id)\nSELECT id FROM part WHERE :id = id", "td.part(id=:id)"},
    {ID "-- @depends kid(id=:id)\nSELECT id FROM kid WHERE :id = id",
     "td.father(id=:id), td.mother(id=:id)"},
    {ID "-- @depends kid(x=:id)\nSELECT id FROM kid WHERE :id = id",
     ":3: @depends kid: table td.mother has no column x"},
    /* Rows. */
    {ID "-- @depends a(id=:id)" FROM_A, "td.a(id=:id)"},
    {ID "-- @depends b(id=:id)" FROM_A, "td.a, td.b(id=:id)"},
    {ID "-- @depends a(v=:id)" FROM_A, "td.a(v=:id)"},
    {ID "-- @depends a(ID=:id)" FROM_A, "td.a(id=:id)"},
    {ID "-- @depends a(ownerId=:id)" FROM_A, "td.a(ownerId=:id)"},
    {ID "-- @depends a(\"ownerId\"=:id)" FROM_A, "td.a(ownerId=:id)"},
    {ID "-- @depends a(UPPER=:id)" FROM_A, "td.a(UPPER=:id)"},
    {ID "-- @depends a(\"ownerid\"=:id)" FROM_A, ":3: @depends a: table td.a has no column…"},
    {ID "-- @depends a(ownerid=:id)" FROM_A, ":3: @depends a: table td.a has no column…"},
    {ID "-- @depends a(ctid=:id)" FROM_A, ":3: @depends a: table td.a has no column ctid"},
    {ID "-- @depends \"Odd.Schema\".\"Ta.ble\"(\"Co.l\"=:id)" FROM_A,
     "Odd.Schema.Ta.ble(Co.l=:id), td.a"},
    {ID "-- @query x text\n-- @depends a(id=:id), a(id=:x), td.a(ownerId=:x)" FROM_A " AND :x = ''",
     "td.a(id=:id), td.a(id=:x), td.a(ownerId=:x)"},
    {ID "-- @depends a(id=:id), td.a(id=:id)" FROM_A, "td.a(id=:id)"},
    {ROUTE "-- @query id text[]\n-- @depends a(id=:id)" FROM_A, "td.a(id=:id)"},
    {NUMBER "-- @depends a(n=:n), a(s=:n), a(b=:n)\nSELECT id FROM a WHERE n = :n",
     "td.a(b=:n), td.a(n=:n), td.a(s=:n)"},
    {ROUTE "-- @query n bigint[]\n-- @depends a(n=:n)\nSELECT id FROM a WHERE n = ANY(:n)",
     "td.a(n=:n)"},
    {ROUTE "-- @query u uuid\n-- @depends a(u=:u)\nSELECT id FROM a WHERE u = :u", "td.a(u=:u)"},
    {ID "-- @depends a(m=:id)" FROM_A, ":3: @depends a: column m is numeric; rows are told…"},
    {ID "-- @depends a(f=:id)" FROM_A, ":3: @depends a: column f is text; rows are told…"},
    {ID "-- @depends a(n=:id)" FROM_A, ":3: @depends a: column n is integer, but `:id` is…"},
    {ID "-- @depends a(u=:id)" FROM_A, ":3: @depends a: column u is uuid, but `:id` is text…"},
    {NUMBER "-- @depends a(id=:n)\nSELECT id FROM a WHERE n = :n",
     ":3: @depends a: column id is text, but `:n` is integer…"},
    /* Contradictions. */
    {ID "-- @depends a(id=:id)\n-- @depends a" FROM_A,
     ":4: @depends names the whole of td.a and some of its rows, too (line 3)…"},
    {ID "-- @depends td.a\n-- @depends a(id=:id)" FROM_A, ":4: @depends names the whole of…"},
    {ID "-- @depends part_1\n-- @depends part_2(id=:id)" FROM_A, ":4: @depends names the…"},
    {ID "-- @depends !td.a\n-- @depends a(id=:id)" FROM_A,
     ":4: @depends names td.a and leaves it out, too (line 3)"},
};

START_TEST(depends)
{
	check(DEPENDS, ELEMENTSOF(DEPENDS));
}
END_TEST

/* ---- bounds, rights, and what stays behind ------------------------------------------- */

START_TEST(tables_beyond_the_tags)
{
	_cleanup_buf_ struct buf all = {0};
	size_t len;
	for (int i = 0; i < 127; i++) {
		_cleanup_free_ char *create = xasprintf(
		    "CREATE TABLE td.many_%d (); GRANT SELECT ON td.many_%d TO PUBLIC", i, i);
		pg_ask(create);
	}
	buf_adds(&all, ROUTE "SELECT 1 FROM many_0");
	for (int i = 1; i < 127; i++)
		buf_addf(&all, ", many_%d", i);
	_cleanup_free_ char *text = buf_take(&all, &len);
	check_one(text, "td.many_0, td.many_1, td.many_10…");
	_cleanup_free_ char *more = xasprintf("%s, a", text);
	check_one(more, "opaque: its tables and tags are more than 127");
	_cleanup_free_ char *tag = xasprintf(ROUTE "-- @cache tags=x\n%s", strchr(text, '\n') + 1);
	check_one(tag, "opaque: its tables and tags are more than 127");
}
END_TEST

START_TEST(more_parameters_than_a_function_has)
{
	_cleanup_buf_ struct buf all = {0};
	size_t len;
	buf_adds(&all, ROUTE);
	for (int i = 0; i < 101; i++)
		buf_addf(&all, "-- @query p%d text\n", i);
	buf_adds(&all, "SELECT json_build_array(:p0 || ''");
	for (int i = 1; i < 101; i++)
		buf_addf(&all, " || :p%d", i);
	buf_adds(&all, ") FROM a");
	_cleanup_free_ char *text = buf_take(&all, &len);
	check_one(text, "opaque: PostgreSQL tells what a statement reads only where…");
}
END_TEST

/* Also with @depends: what it says is meant to go with what is found. */
START_TEST(without_the_right_to_ask)
{
	const char *database = PQdb(pg);
	_cleanup_free_ char *why = xasprintf(
	    "opaque: PostgreSQL does not tell what it reads (permission denied to create "
	    "temporary tables in database \"%s\"): run GRANT TEMPORARY ON DATABASE %s TO …",
	    database, database);
	_cleanup_free_ char *revoke =
	    xasprintf("REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC", database);
	_cleanup_free_ char *grant =
	    xasprintf("GRANT TEMPORARY ON DATABASE %s TO PUBLIC", database);
	const struct example temporary = {ID "-- @depends a(id=:id)" FROM_A, why};
	static const struct example language = {ROUTE "SELECT id FROM a",
	                                        "opaque: PostgreSQL does not tell what it reads "
	                                        "(permission denied for language sql): "
	                                        "run GRANT USAGE ON LANGUAGE sql TO …"};
	pg_ask(revoke);
	check(&temporary, 1);
	pg_ask(grant);
	pg_ask("REVOKE USAGE ON LANGUAGE sql FROM PUBLIC");
	check(&language, 1);
	pg_ask("GRANT USAGE ON LANGUAGE sql TO PUBLIC");
}
END_TEST

START_TEST(nothing_stays_behind)
{
	static const char temporary[] =
	    "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE "
	    "'pg_temp%') + (SELECT count(*) FROM pg_proc WHERE proname "
	    "= 'provost_statement')";
	check_one(ROUTE "SELECT id FROM a", "td.a");
	ck_assert_uint_eq(pg_ask(temporary), 0);
}
END_TEST

/* ---- the fingerprint ----------------------------------------------------------------- */

static uint64_t fingerprint(const char *text)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_endpoint_ struct endpoint *e = parse(text, 0);
	describe(&e, 1, errs);
	ck_assert_uint_eq(errors_count(errs), 0);
	return e->fingerprint;
}

#define FP ROUTE "SELECT id, td.fp_f() FROM td.fp_v"

static const struct {
	const char *change;
	bool same;
} CHANGES[] = {
    {"SELECT 1", true},
    {"INSERT INTO td.fp VALUES ('x')", true},
    {"ALTER TABLE td.fp ADD COLUMN x text", true},
    {"CREATE OR REPLACE VIEW td.fp_v AS SELECT id FROM td.fp WHERE id > ''", false},
    {"CREATE OR REPLACE VIEW td.fp_v AS SELECT fp.id FROM td.fp, td.b", false},
    {"CREATE OR REPLACE FUNCTION td.fp_f() RETURNS integer LANGUAGE sql RETURN 2", false},
    {"ALTER TABLE td.fp ALTER COLUMN id TYPE varchar(8)", false},
    {"ALTER TABLE td.fp RENAME TO fp_old; CREATE TABLE td.fp (id text); CREATE OR REPLACE VIEW "
     "td.fp_v AS SELECT id FROM td.fp; GRANT SELECT ON td.fp TO PUBLIC",
     false},
    {"ALTER TABLE td.fp ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON td.fp USING (id > 'a')",
     false},
};

START_TEST(fingerprints)
{
	pg_ask("SET client_min_messages = error; DROP TABLE IF EXISTS td.fp, td.fp_old "
	       "CASCADE;"
	       "DROP FUNCTION IF EXISTS td.fp_f(); CREATE TABLE td.fp (id text);"
	       "CREATE VIEW td.fp_v AS SELECT id FROM td.fp;"
	       "CREATE FUNCTION td.fp_f() RETURNS integer LANGUAGE sql RETURN 1;"
	       "GRANT SELECT ON td.fp, td.fp_v TO PUBLIC");
	uint64_t before = fingerprint(FP);
	if (strstr(CHANGES[_i].change, "ALTER COLUMN"))
		pg_ask("DROP VIEW td.fp_v");
	pg_ask(CHANGES[_i].change);
	if (strstr(CHANGES[_i].change, "ALTER COLUMN"))
		pg_ask("CREATE VIEW td.fp_v AS SELECT id FROM td.fp;"
		       "GRANT SELECT ON td.fp_v TO PUBLIC");
	ck_assert_int_eq(fingerprint(FP) == before, CHANGES[_i].same);
}
END_TEST

/* Two texts may be told apart by the parser as well; here it is what they mean that differs. */
START_TEST(fingerprints_of_dependencies)
{
	ck_assert(fingerprint(ROUTE "SELECT id FROM td.b") !=
	          fingerprint(READ "a\nSELECT id FROM td.b"));
	ck_assert(fingerprint(ROUTE "SELECT id FROM td.b") !=
	          fingerprint(ROUTE "-- @cache tags=x\nSELECT id FROM td.b"));
	ck_assert(fingerprint(ROUTE "SELECT id FROM td.b") !=
	          fingerprint(ROUTE "-- @cache vary=sub\nSELECT id FROM td.b"));
}
END_TEST

START_TEST(all_that_is_wrong_at_once)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_endpoint_ struct endpoint *e =
	    parse(READ "nothing, v1\nSELECT id, id FROM a, missing", 0);
	describe(&e, 1, errs);
	ck_assert_uint_eq(errors_count(errs), 3);
	ck_assert_ptr_nonnull(strstr(errors_text(errs, 0), "\"missing\" does not exist"));
	ck_assert_ptr_nonnull(strstr(errors_text(errs, 1), "knows no table"));
	ck_assert_ptr_nonnull(strstr(errors_text(errs, 2), "is no table"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("discover");
	TCase *c = tcase_create("discover");
	tcase_set_timeout(c, 60);
	tcase_add_unchecked_fixture(c, create_objects, forget_url);
	tcase_add_checked_fixture(c, setup, pg_close);
	tcase_add_test(c, tables);
	tcase_add_test(c, functions);
	tcase_add_test(c, parameters);
	tcase_add_test(c, depends);
	tcase_add_loop_test(c, fingerprints, 0, ELEMENTSOF(CHANGES));
	tcase_add_test(c, fingerprints_of_dependencies);
	tcase_add_test(c, all_that_is_wrong_at_once);
	tcase_add_test(c, tables_beyond_the_tags);
	tcase_add_test(c, more_parameters_than_a_function_has);
	tcase_add_test(c, without_the_right_to_ask);
	tcase_add_test(c, nothing_stays_behind);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	conn_global_init();
	return pg_run_suite(suite());
}
