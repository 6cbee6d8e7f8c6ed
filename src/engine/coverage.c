#include "provost/coverage.h"

#include <errno.h>
#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "needs.h"
#include "provost/buf.h"
#include "provost/catalog.h"
#include "provost/conn.h"
#include "provost/log.h"
#include "provost/tags.h"
#include "ways.h"

/* The topmost table of a tree, as it was seen. */
struct table {
	pg_oid oid;
	uint64_t digest; /* of it, all below it, and their triggers */
	char *why;       /* it is not covered; NULL: it is */
	bool helps;      /* `provost triggers install` does */
	bool changed;    /* since the look before, as far as is known */
};

struct tables {
	struct table *table; /* sorted by oid */
	size_t n;
};

struct coverage {
	struct generations *generations;
	struct tables seen;
	struct ways ways; /* likewise */
	char *refusal;    /* why the last look was in vain, or NULL */
};

static void tables_done(struct tables *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->table[i].why);
	free(l->table);
	*l = (struct tables){0};
}
#define _cleanup_tables_ _cleanup_(tables_done)

struct coverage *coverage_new(struct generations *g)
{
	struct coverage *v = xcalloc(1, sizeof *v);
	v->generations = g;
	return v;
}

void coverage_free(struct coverage **vp)
{
	struct coverage *v = *vp;
	*vp = NULL;
	if (!v)
		return;
	tables_done(&v->seen);
	ways_done(&v->ways);
	free(v->refusal);
	free(v);
}

/* ---- looking ------------------------------------------------------------------------- */

static int by_oid(const void *a, const void *b)
{
	const struct table *x = a, *y = b;
	return (x->oid > y->oid) - (x->oid < y->oid);
}

static struct table *find(const struct tables *l, pg_oid oid)
{
	struct table wanted = {.oid = oid};
	return l->n ? bsearch(&wanted, l->table, l->n, sizeof wanted, by_oid) : NULL;
}

static int ask(struct conn *conn, const struct catalog *c, uint64_t deadline_us,
               struct pg_result **ret)
{
	_cleanup_needs_ struct needs l = {0};
	needs_of_catalog(&l, c);
	_cleanup_free_ char *tables = needs_tables(&l), *columns = needs_columns(&l);
	const char *value[] = {tables, columns};
	pg_oid oid[] = {1028, 1009}; /* oid[], text[] */
	struct stmt s = {.sql = (char *)(uintptr_t)coverage_sql,
	                 .sql_len = strlen(coverage_sql),
	                 .binds = ELEMENTSOF(oid),
	                 .oid = oid};
	stmt_seal(&s);
	return conn_run(conn, &s, value, deadline_us, NULL, ret);
}

/* The rows of a table stand together. */
static void add_row(struct tables *l, const PGresult *r, int i)
{
	pg_oid oid = (pg_oid)strtoul(PQgetvalue(r, i, COVERAGE_ROOT), NULL, 10);
	const char *digest = PQgetvalue(r, i, COVERAGE_DIGEST);
	if (l->n == 0 || l->table[l->n - 1].oid != oid) {
		l->table = xrealloc(l->table, l->n + 1, sizeof *l->table);
		l->table[l->n++] = (struct table){.oid = oid, .changed = true};
	}
	struct table *t = &l->table[l->n - 1];
	t->digest = XXH3_64bits_withSeed(digest, strlen(digest), t->digest);
	if (t->why || PQgetisnull(r, i, COVERAGE_KIND))
		return;
	t->helps = strcmp(PQgetvalue(r, i, COVERAGE_KIND), "unsupported") != 0;
	t->why =
	    xasprintf("%s %s", PQgetvalue(r, i, COVERAGE_NAME), PQgetvalue(r, i, COVERAGE_WHY));
}

/* What PostgreSQL says instead of an answer. */
static char *words_of(const struct pg_result *refusal)
{
	const char *message =
	    PQresultErrorField((const PGresult *)refusal, PG_DIAG_MESSAGE_PRIMARY);
	return xstrdup(message ? message : "no reason given");
}

/* `*ret_refusal`: with -EIO, what PostgreSQL says. */
static int look(struct conn *conn, const struct catalog *c, uint64_t deadline_us,
                struct tables *ret, char **ret_refusal)
{
	_cleanup_result_ struct pg_result *result = NULL;
	int r = ask(conn, c, deadline_us, &result);
	if (r < 0)
		return r == -ECANCELED ? r : -ENOTCONN;
	const PGresult *rows = (const PGresult *)result;
	if (*conn_sqlstate(result)) {
		*ret_refusal = words_of(result);
		return -EIO;
	}
	for (int i = 0; i < PQntuples(rows); i++)
		add_row(ret, rows, i);
	if (ret->n)
		qsort(ret->table, ret->n, sizeof *ret->table, by_oid);
	return 0;
}

/* As look. */
static int look_at_ways(struct conn *conn, const struct catalog *c, uint64_t deadline_us,
                        struct ways *ret, char **ret_refusal)
{
	_cleanup_result_ struct pg_result *refusal = NULL;
	int r = ways_look(conn, c, deadline_us, ret, &refusal);
	if (r < 0)
		return r == -ECANCELED ? r : -ENOTCONN;
	if (!refusal)
		return 0;
	*ret_refusal = words_of(refusal);
	return -EIO;
}

/* ---- what follows -------------------------------------------------------------------- */

#define HELP    "run provost triggers install, as the owner of the database"
#define NO_HELP "@depends !TABLE leaves it out, if answers may be as old as their ttl"

/* The name that endpoints know it by. */
static const char *name_of(const struct catalog *c, pg_oid oid)
{
	for (size_t i = 0; i < c->endpoints; i++)
		for (size_t k = 0; k < c->endpoint[i]->dependencies; k++)
			if (c->endpoint[i]->dependency[k].oid == oid)
				return c->endpoint[i]->dependency[k].table;
	return "";
}

static void log_change(const struct catalog *c, const struct table *before, const struct table *now)
{
	const char *name = name_of(c, now->oid);
	if (now->why && !(before && before->why && !strcmp(before->why, now->why)))
		log_warn("endpoints of a table are neither cached nor collapsed: its changes are "
		         "not told",
		         LOGS("table", name), LOGS("reason", now->why),
		         LOGS("help", now->helps ? HELP : NO_HELP));
	else if (!now->why && before && before->why)
		log_info("endpoints of a table are cached again: its changes are told",
		         LOGS("table", name));
}

/* All that was not as it is, or not known, before. */
static void compare(struct coverage *v, const struct catalog *c, struct tables *now)
{
	for (size_t i = 0; i < now->n; i++) {
		struct table *t = &now->table[i];
		const struct table *before = find(&v->seen, t->oid);
		t->changed = !before || before->why || before->digest != t->digest;
		log_change(c, before, t);
	}
}

/* Whether its ways are those that it was loaded with. Where they are not, other tables may matter
 * than are known, until it is loaded again. */
static bool check_ways(struct coverage *v, const struct endpoint *e, const struct ways *now,
                       bool changed)
{
	const struct way *other = ways_replaced(now, e);
	if (other && changed && !v->refusal)
		log_warn("endpoint: neither cached nor collapsed until a reload: what it reads "
		         "through is another",
		         LOGS("endpoint", e->name), LOGS("replaced", other->name),
		         LOGS("help", "run provost reload"));
	return !other;
}

/* Raises before it clears: who sees the endpoint covered sees its entries as old. But what was read
 * through other ways than it was loaded with is raised once no more of it is stored. */
static void apply(struct coverage *v, struct endpoint *e, const struct tables *now,
                  const struct ways *ways)
{
	/* The look before may have been at a catalogue that was refused in the end. */
	bool anew = ways_changed(&v->ways, ways, e) ||
	            (!atomic_load(&e->uncovered) && ways_replaced(ways, e));
	bool covered = check_ways(v, e, ways, anew), changed = anew;
	for (size_t i = 0; i < e->dependencies; i++) {
		const struct table *t = find(now, e->dependency[i].oid);
		covered = covered && t && !t->why;
		changed = changed || !t || t->changed;
	}
	if (!covered)
		atomic_store(&e->uncovered, true);
	if (anew || (covered && changed))
		tags_raise_endpoint(v->generations, e->name);
	if (covered)
		atomic_store(&e->uncovered, false);
}

/* Also by the table: an endpoint that a reload has taken away may come back with the next. */
static void raise_tables(struct coverage *v, const struct catalog *c, const struct tables *now)
{
	for (size_t i = 0; i < now->n; i++) {
		const char *name = name_of(c, now->table[i].oid);
		if (now->table[i].changed && !now->table[i].why)
			tags_raise(v->generations, name, strlen(name));
	}
}

static void apply_all(struct coverage *v, struct catalog *c, struct tables *now, struct ways *ways)
{
	raise_tables(v, c, now);
	for (size_t i = 0; i < c->endpoints; i++) {
		struct endpoint *e = c->endpoint[i];
		if (e->dependencies + e->ways > 0 && !e->opaque)
			apply(v, e, now, ways);
	}
	tables_done(&v->seen);
	ways_done(&v->ways);
	v->seen = *now;
	v->ways = *ways;
	*now = (struct tables){0};
	*ways = (struct ways){0};
}

int coverage_look(struct coverage *v, struct catalog *c, struct conn *conn, uint64_t deadline_us)
{
	_cleanup_tables_ struct tables now = {0};
	_cleanup_ways_ struct ways ways = {0};
	_cleanup_free_ char *refusal = NULL;
	int r = look(conn, c, deadline_us, &now, &refusal);
	if (r == 0)
		r = look_at_ways(conn, c, deadline_us, &ways, &refusal);
	if (r < 0 && r != -EIO)
		return r;
	if (r == -EIO && !(v->refusal && !strcmp(v->refusal, refusal)))
		log_warn("no endpoint is cached or collapsed: PostgreSQL does not tell whether "
		         "changes are told",
		         LOGS("reason", refusal));
	free(v->refusal);
	v->refusal = refusal;
	refusal = NULL;
	compare(v, c, &now);
	apply_all(v, c, &now, &ways);
	return r;
}

/* ---- telling ------------------------------------------------------------------------- */

static void add_endpoints(struct buf *b, const struct catalog *c, pg_oid table)
{
	for (size_t i = 0; i < c->endpoints; i++) {
		const struct endpoint *e = c->endpoint[i];
		size_t k = 0;
		while (k < e->dependencies && e->dependency[k].oid != table)
			k++;
		if (k < e->dependencies && !e->opaque)
			buf_addf(b, "%s%s", b->len ? ", " : "", e->name);
	}
	buf_addc(b, '\0');
	ALWAYS(!b->failed);
}

int coverage_check(const struct catalog *c, struct conn *conn, uint64_t deadline_us,
                   struct errors *notes)
{
	_cleanup_tables_ struct tables now = {0};
	_cleanup_free_ char *refusal = NULL;
	int r = look(conn, c, deadline_us, &now, &refusal);
	if (r == -EIO)
		errors_add(notes, NULL, 0,
		           "nothing is cached: whether changes are told cannot be found out: %s",
		           refusal);
	for (size_t i = 0; i < now.n; i++) {
		_cleanup_buf_ struct buf names = {0};
		if (!now.table[i].why)
			continue;
		add_endpoints(&names, c, now.table[i].oid);
		errors_add(
		    notes, NULL, 0,
		    "changes of table %s are not told (%s), so what depends on it is neither "
		    "cached nor collapsed (%s): %s",
		    name_of(c, now.table[i].oid), now.table[i].why, names.data,
		    now.table[i].helps ? HELP : NO_HELP);
	}
	return r;
}
