#include "dependencies.h"

#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "discover.h"
#include "provost/buf.h"
#include "provost/log.h"
#include "provost/tags.h"

/* ---- @depends, as PostgreSQL resolves it --------------------------------------------- */

/* One root of the tree of one entry's table; an entry may have several. */
struct named {
	const struct depend *entry;
	pg_oid oid;
	const char *table, *column; /* of the result below */
	bool system;
};

struct resolved {
	struct pg_result *result;
	struct named *named;
	size_t n;
};

static void resolved_done(struct resolved *r)
{
	conn_result_free(&r->result);
	free(r->named);
}
#define _cleanup_resolved_ _cleanup_(resolved_done)

/* $1: tables as written; $2: columns as written, without quotes; $3: those that stood without
 * quotes, in lower case. The demo's columns are called as their application calls them
 * ("createdAt"), so a column is looked for as it is written first, and then as SQL would. */
static const char RESOLVE[] =
    "/* provost */ WITH RECURSIVE entry AS ("
    " SELECT i, exact, folded, to_regclass(name)::oid AS oid"
    " FROM unnest($1::text[], $2::text[], $3::text[])"
    " WITH ORDINALITY AS t (name, exact, folded, i)"
    "), " SQL_ROOTS(
        "entry") " SELECT e.i - 1, c.oid, " SQL_TAG_NAME ", " SQL_IS_SYSTEM ","
                 " c.relkind IN ('r', 'p', 'f', 'm', 'S') OR c.relkind = 'v' AND " SQL_IS_SYSTEM ","
                 " a.attname, a.atttypid, format_type(a.atttypid, NULL), l.collisdeterministic"
                 " FROM entry e"
                 " LEFT JOIN (SELECT DISTINCT base, oid FROM root) r ON r.base = e.oid"
                 " LEFT JOIN pg_catalog.pg_class c ON c.oid = r.oid"
                 " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                 " LEFT JOIN LATERAL (SELECT a.* FROM pg_catalog.pg_attribute a"
                 "  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
                 "  AND a.attname::text IN (e.exact, e.folded)"
                 "  ORDER BY a.attname::text = e.exact DESC LIMIT 1) a ON true"
                 " LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation"
                 " ORDER BY 1, 3";

enum { R_ENTRY, R_OID, R_TABLE, R_SYSTEM, R_IS_TABLE, R_COLUMN, R_TYPE, R_TYPE_NAME, R_EXACT };

static void add_element(struct buf *b, const char *s, size_t n)
{
	buf_addc(b, b->len ? ',' : '{');
	if (!s) {
		buf_adds(b, "NULL");
		return;
	}
	buf_addc(b, '"');
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"' || s[i] == '\\')
			buf_addc(b, '\\');
		buf_addc(b, s[i]);
	}
	buf_addc(b, '"');
}

static void add_column(struct buf *exact, struct buf *folded, const char *column)
{
	_cleanup_free_ char *name = column ? xstrdup(column) : NULL;
	bool quoted = name && *name == '"';
	size_t n = 0;
	for (const char *p = quoted ? column + 1 : column; p && *p; p++) {
		if (quoted && *p == '"' && *++p != '"')
			break;
		name[n++] = *p;
	}
	add_element(exact, name, n);
	for (size_t i = 0; i < n; i++)
		if (name[i] >= 'A' && name[i] <= 'Z')
			name[i] = (char)(name[i] + ('a' - 'A'));
	add_element(folded, quoted ? NULL : name, n);
}

static char *array_end(struct buf *b)
{
	size_t len;
	buf_addc(b, '}');
	char *text = buf_take(b, &len);
	ALWAYS(text);
	return text;
}

static int ask(struct conn *c, const struct endpoint *e, uint64_t deadline_us,
               struct pg_result **ret)
{
	_cleanup_buf_ struct buf tables = {0}, exact = {0}, folded = {0};
	pg_oid oid[] = {1009, 1009, 1009}; /* text[] */
	for (size_t i = 0; i < e->depends; i++) {
		add_element(&tables, e->depend[i].table, strlen(e->depend[i].table));
		add_column(&exact, &folded, e->depend[i].column);
	}
	_cleanup_free_ char *t = array_end(&tables), *x = array_end(&exact),
	                    *f = array_end(&folded);
	const char *value[] = {t, x, f};
	struct stmt s = {.sql = (char *)(uintptr_t)RESOLVE,
	                 .sql_len = sizeof RESOLVE - 1,
	                 .binds = ELEMENTSOF(oid),
	                 .oid = oid};
	stmt_seal(&s);
	return conn_run(c, &s, value, deadline_us, NULL, ret);
}

/* ---- what may be narrowed ------------------------------------------------------------ */

/* Types whose values have one spelling each, and which `=` compares by it. */
enum kind { KIND_NONE, KIND_TEXT, KIND_UUID, KIND_INTEGER };

static enum kind kind_of_column(pg_oid type, bool deterministic)
{
	switch (type) {
	case 25:   /* text */
	case 1043: /* varchar */
		return deterministic ? KIND_TEXT : KIND_NONE;
	case 2950:
		return KIND_UUID;
	case 20: /* bigint, smallint, integer */
	case 21:
	case 23:
		return KIND_INTEGER;
	}
	return KIND_NONE;
}

static enum kind kind_of_param(enum param_type t)
{
	switch (t) {
	case TYPE_TEXT:
		return KIND_TEXT;
	case TYPE_UUID:
		return KIND_UUID;
	case TYPE_INTEGER:
	case TYPE_BIGINT:
		return KIND_INTEGER;
	default:
		return KIND_NONE;
	}
}

static void check_narrowing(const struct endpoint *e, const struct named *n, const PGresult *r,
                            int row, struct errors *errs)
{
	const struct depend *d = n->entry;
	const struct param *p = endpoint_param(e, d->param);
	ALWAYS(p);
	if (PQgetisnull(r, row, R_COLUMN)) {
		errors_add(errs, e->file, d->line, "@depends %s: table %s has no column %s",
		           d->table, n->table, d->column);
		return;
	}
	bool deterministic = *PQgetvalue(r, row, R_EXACT) == 't';
	enum kind column =
	    kind_of_column((pg_oid)strtoul(PQgetvalue(r, row, R_TYPE), NULL, 10), deterministic);
	if (column == KIND_NONE)
		errors_add(errs, e->file, d->line,
		           "@depends %s: column %s is %s; rows are told apart by columns of type "
		           "text or varchar (of a deterministic collation), uuid, smallint, "
		           "integer or bigint only",
		           d->table, d->column, PQgetvalue(r, row, R_TYPE_NAME));
	else if (column != kind_of_param(p->type))
		errors_add(errs, e->file, d->line,
		           "@depends %s: column %s is %s, but `:%s` is %s: text goes with text, "
		           "uuid with uuid, integers with integers",
		           d->table, d->column, PQgetvalue(r, row, R_TYPE_NAME), d->param,
		           param_type_name(p->type));
}

static void check_named(const struct endpoint *e, const struct named *n, const PGresult *r, int row,
                        struct errors *errs)
{
	const struct depend *d = n->entry;
	if (n->oid == 0)
		errors_add(errs, e->file, d->line,
		           "@depends %s: PostgreSQL knows no table of that name", d->table);
	else if (*PQgetvalue(r, row, R_IS_TABLE) != 't')
		errors_add(errs, e->file, d->line,
		           "@depends %s: that is no table; of a view name the tables under it",
		           d->table);
	else if (d->column)
		check_narrowing(e, n, r, row, errs);
}

/* Two entries of one table, however they spell it. */
static void check_pair(const struct endpoint *e, const struct named *n, const struct named *before,
                       struct errors *errs)
{
	if (n->oid != before->oid || n->entry == before->entry)
		return;
	if (n->entry->exclude != before->entry->exclude)
		errors_add(errs, e->file, n->entry->line,
		           "@depends names %s and leaves it out, too (line %u)", n->table,
		           before->entry->line);
	else if (!n->entry->column != !before->entry->column)
		errors_add(errs, e->file, n->entry->line,
		           "@depends names the whole of %s and some of its rows, too (line %u): "
		           "keep one of them",
		           n->table, before->entry->line);
}

/* Asks PostgreSQL what the names in @depends mean. */
static int resolve(struct conn *c, const struct endpoint *e, uint64_t deadline_us,
                   struct resolved *ret, struct errors *errs)
{
	if (e->depends == 0)
		return 0;
	int err = ask(c, e, deadline_us, &ret->result);
	if (err < 0)
		return err;
	const PGresult *r = (const PGresult *)ret->result;
	if (*conn_sqlstate(ret->result)) {
		errors_add(errs, e->file, e->depend[0].line, "@depends: PostgreSQL says: %s",
		           PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY));
		return 0;
	}
	ret->n = (size_t)PQntuples(r);
	ret->named = xcalloc(ret->n, sizeof *ret->named);
	for (size_t i = 0; i < ret->n; i++) {
		struct named *n = &ret->named[i];
		n->entry = &e->depend[strtoul(PQgetvalue(r, (int)i, R_ENTRY), NULL, 10)];
		n->oid = (pg_oid)strtoul(PQgetvalue(r, (int)i, R_OID), NULL, 10);
		n->table = PQgetvalue(r, (int)i, R_TABLE);
		n->column = n->entry->column ? PQgetvalue(r, (int)i, R_COLUMN) : NULL;
		n->system = *PQgetvalue(r, (int)i, R_SYSTEM) == 't';
		check_named(e, n, r, (int)i, errs);
		for (size_t k = 0; n->oid && k < i; k++)
			check_pair(e, n, &ret->named[k], errs);
	}
	return 0;
}

/* ---- both together ------------------------------------------------------------------- */

/* Whether @depends replaces what was found about that table. */
static bool is_overruled(const struct resolved *r, pg_oid oid)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->named[i].oid == oid && (r->named[i].entry->exclude || r->named[i].column))
			return true;
	return false;
}

static void add(struct endpoint *e, pg_oid oid, const char *table, const char *column, size_t param)
{
	e->dependency = xrealloc(e->dependency, e->dependencies + 1, sizeof *e->dependency);
	e->dependency[e->dependencies++] = (struct dependency){
	    .table = xstrdup(table),
	    .column = column ? xstrdup(column) : NULL,
	    .param = param,
	    .oid = oid,
	};
}

static int compare(const void *a, const void *b)
{
	const struct dependency *x = a, *y = b;
	int r = strcmp(x->table, y->table);
	if (r == 0)
		r = strcmp(x->column ? x->column : "", y->column ? y->column : "");
	if (r == 0)
		r = (x->param > y->param) - (x->param < y->param);
	return r;
}

static void sort(struct endpoint *e)
{
	size_t n = 0;
	if (e->dependencies == 0)
		return;
	qsort(e->dependency, e->dependencies, sizeof *e->dependency, compare);
	for (size_t i = 0; i < e->dependencies; i++) {
		if (n > 0 && compare(&e->dependency[n - 1], &e->dependency[i]) == 0) {
			free(e->dependency[i].table);
			free(e->dependency[i].column);
		} else {
			e->dependency[n++] = e->dependency[i];
		}
	}
	e->dependencies = n;
}

static void merge(struct endpoint *e, const struct discovered *d, const struct resolved *r)
{
	for (size_t i = 0; i < d->tables; i++)
		if (!is_overruled(r, d->table[i].oid))
			add(e, d->table[i].oid, d->table[i].name, NULL, 0);
	for (size_t i = 0; i < r->n; i++) {
		const struct named *n = &r->named[i];
		if (n->entry->exclude)
			continue;
		const struct param *p = n->column ? endpoint_param(e, n->entry->param) : NULL;
		add(e, n->oid, n->table, n->column, p ? (size_t)(p - e->param) : 0);
	}
	sort(e);
}

static void warn_of_needless(const struct endpoint *e, const struct discovered *d,
                             const struct resolved *r)
{
	for (size_t i = 0; i < r->n; i++) {
		bool found = !r->named[i].entry->exclude;
		for (size_t k = 0; !found && k < d->tables; k++)
			found = d->table[k].oid == r->named[i].oid;
		if (!found)
			log_warn("endpoint: @depends leaves out what is not read",
			         LOGS("endpoint", e->name), LOGS("table", r->named[i].table));
	}
}

/* ---- what is not known --------------------------------------------------------------- */

/* Whether the author has said what functions hide. */
static bool is_answered(const struct endpoint *e)
{
	for (size_t i = 0; i < e->depends; i++)
		if (!e->depend[i].exclude)
			return true;
	return false;
}

static char *of_functions(const struct discovered *d)
{
	size_t others = d->opaque.count - 1;
	_cleanup_free_ char *more = others ? xasprintf(" (and %zu more)", others) : NULL;
	return xasprintf("PostgreSQL does not know what %s%s reads: say so with @depends TABLE, … "
	                 "or give it a body that begins with BEGIN ATOMIC; if it reads no table, "
	                 "make it IMMUTABLE",
	                 d->opaque.item[0], more ? more : "");
}

static const char *system_table(const struct discovered *d, const struct resolved *r)
{
	for (size_t i = 0; i < d->tables; i++)
		if (d->table[i].system && !is_overruled(r, d->table[i].oid))
			return d->table[i].name;
	for (size_t i = 0; i < r->n; i++)
		if (r->named[i].system && !r->named[i].entry->exclude)
			return r->named[i].table;
	return NULL;
}

/* The least that tags_of may have to write: a tag for each table and name, and the endpoint's own.
 */
static size_t least_tags(const struct endpoint *e)
{
	size_t n = 1 + e->cache.tags.count;
	for (size_t i = 0; i < e->dependencies; i++)
		n += i == 0 || strcmp(e->dependency[i].table, e->dependency[i - 1].table) != 0;
	return n;
}

static char *why_opaque(const struct endpoint *e, const struct discovered *d,
                        const struct resolved *r)
{
	if (d->failure)
		return xstrdup(d->failure);
	if (d->opaque.count > 0 && !is_answered(e))
		return of_functions(d);
	const char *system = system_table(d, r);
	if (system)
		return xasprintf(
		    "it reads %s, of whose changes PostgreSQL tells nobody: if answers "
		    "may be as old as their ttl, say @depends !%s",
		    system, system);
	if (least_tags(e) > TAGS_MIN)
		return xasprintf("its tables and tags are more than %d", TAGS_MIN - 1);
	return NULL;
}

/* ---- the fingerprint ----------------------------------------------------------------- */

static void add_text(struct buf *b, const char *s)
{
	buf_add(b, s ? s : "", s ? strlen(s) + 1 : 1);
}

static void mix_fingerprint(struct endpoint *e, const PGresult *columns, const struct discovered *d,
                            const struct resolved *r)
{
	_cleanup_buf_ struct buf b = {0};
	buf_addf(&b, "%llx %d %d %d ", (unsigned long long)d->meaning, e->cache.vary_sub,
	         e->cache.vary_role, (int)e->returns);
	for (int i = 0; i < PQnfields(columns); i++) {
		buf_addf(&b, "%u %d ", PQftype(columns, i), PQfmod(columns, i));
		add_text(&b, PQfname(columns, i));
	}
	/* Another table of the same name is another table. */
	for (size_t i = 0; i < d->tables; i++)
		buf_addf(&b, "%u ", d->table[i].oid);
	for (size_t i = 0; i < d->ways; i++)
		buf_addf(&b, "%u %llx ", d->way[i].oid, (unsigned long long)d->way[i].digest);
	for (size_t i = 0; i < r->n; i++)
		buf_addf(&b, "%u ", r->named[i].oid);
	for (size_t i = 0; i < e->dependencies; i++) {
		add_text(&b, e->dependency[i].table);
		add_text(&b, e->dependency[i].column);
		buf_addf(&b, "%zu ", e->dependency[i].param);
	}
	for (size_t i = 0; i < e->cache.tags.count; i++)
		add_text(&b, e->cache.tags.item[i]);
	ALWAYS(!b.failed);
	e->fingerprint = XXH3_64bits_withSeed(b.data, b.len, e->fingerprint);
}

/* What was found when the database went away before all endpoints were described. */
static void forget(struct endpoint *e)
{
	for (size_t i = 0; i < e->dependencies; i++) {
		free(e->dependency[i].table);
		free(e->dependency[i].column);
	}
	e->dependencies = 0;
	for (size_t i = 0; i < e->ways; i++)
		free(e->way[i].name);
	e->ways = 0;
	free(e->way);
	free(e->opaque);
	e->way = NULL;
	e->opaque = NULL;
}

/* ---- all of it ----------------------------------------------------------------------- */

int dependencies_check(struct conn *c, const struct endpoint *e, uint64_t deadline_us,
                       struct errors *errs)
{
	_cleanup_resolved_ struct resolved r = {0};
	return resolve(c, e, deadline_us, &r, errs);
}

int dependencies_find(struct conn *c, struct endpoint *e, const struct pg_result *columns,
                      uint64_t deadline_us, struct errors *errs)
{
	_cleanup_discovered_ struct discovered d = {0};
	_cleanup_resolved_ struct resolved r = {0};
	size_t before = errors_count(errs);
	int err = resolve(c, e, deadline_us, &r, errs);
	if (err < 0 || errors_count(errs) > before)
		return err;
	err = discover(c, &e->stmt, deadline_us, &d);
	if (err < 0)
		return err;
	if (d.publishes) {
		errors_add(errs, e->file, e->sql_line,
		           "a GET must not call provost.publish: it may be repeated and cached");
		return 0;
	}
	forget(e);
	merge(e, &d, &r);
	e->opaque = why_opaque(e, &d, &r);
	mix_fingerprint(e, (const PGresult *)columns, &d, &r);
	if (!d.failure)
		warn_of_needless(e, &d, &r);
	e->way = d.way;
	e->ways = d.ways;
	d.way = NULL;
	d.ways = 0;
	if (e->opaque && !e->cache.off)
		log_warn("endpoint: neither cached nor collapsed", LOGS("endpoint", e->name),
		         LOGS("reason", e->opaque));
	return 0;
}
