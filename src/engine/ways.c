#include "ways.h"

#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "provost/buf.h"
#include "provost/catalog.h"

void ways_done(struct ways *w)
{
	free(w->seen);
	*w = (struct ways){0};
}

/* $1: relations; $2: functions. It belongs to the look whose statement begins with the same words,
 * by which those who look at what the server does know it. */
static const char LOOK[] =
    /* clang-format off */
    "/* provost */\n-- Whether changes of tables are told: and through what they are read.\n"
    "SELECT c.oid, false, " SQL_MEANING_OF_RELATION ","
    " pg_catalog.concat_ws(' ', c.xmin, (SELECT pg_catalog.string_agg("
    "  pg_catalog.concat_ws(' ', w.oid, w.xmin), ' ' ORDER BY w.oid)"
    "  FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid), (SELECT pg_catalog.string_agg("
    "  pg_catalog.concat_ws(' ', y.oid, y.xmin), ' ' ORDER BY y.oid) FROM pg_catalog.pg_policy y"
    "  WHERE y.polrelid = c.oid))"
    " FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)"
    " UNION ALL"
    " SELECT p.oid, true, " SQL_MEANING_OF_ROUTINE ", p.xmin::pg_catalog.text"
    " FROM pg_catalog.pg_proc p WHERE p.oid = ANY ($2)";
/* clang-format on */

/* Of all endpoints, as an array literal; some more than once. */
static char *list(const struct catalog *c, bool routines)
{
	struct buf b = {0};
	buf_addc(&b, '{');
	for (size_t i = 0; i < c->endpoints; i++) {
		const struct endpoint *e = c->endpoint[i];
		for (size_t k = 0; k < e->ways; k++)
			if (e->way[k].routine == routines)
				buf_addf(&b, "%s%u", b.len > 1 ? "," : "", e->way[k].oid);
	}
	buf_addc(&b, '}');
	char *text = buf_take(&b, NULL);
	ALWAYS(text);
	return text;
}

static int compare(const void *a, const void *b)
{
	const struct way_seen *x = a, *y = b;
	int r = x->routine - y->routine;
	return r ? r : (x->oid > y->oid) - (x->oid < y->oid);
}

static const struct way_seen *find(const struct ways *l, const struct way *w)
{
	struct way_seen wanted = {.oid = w->oid, .routine = w->routine};
	return l->n ? bsearch(&wanted, l->seen, l->n, sizeof wanted, compare) : NULL;
}

static uint64_t hash(const char *text)
{
	return XXH3_64bits(text, strlen(text));
}

int ways_look(struct conn *conn, const struct catalog *c, uint64_t deadline_us, struct ways *ret,
              struct pg_result **ret_refusal)
{
	_cleanup_result_ struct pg_result *result = NULL;
	_cleanup_free_ char *relations = list(c, false), *routines = list(c, true);
	const char *value[] = {relations, routines};
	pg_oid oid[] = {1028, 1028}; /* oid[] */
	struct stmt s = {.sql = (char *)(uintptr_t)LOOK,
	                 .sql_len = sizeof LOOK - 1,
	                 .binds = ELEMENTSOF(oid),
	                 .oid = oid};
	stmt_seal(&s);
	int r = conn_run(conn, &s, value, deadline_us, NULL, &result);
	if (r < 0)
		return r;
	if (*conn_sqlstate(result)) {
		*ret_refusal = result;
		result = NULL;
		return 0;
	}
	const PGresult *rows = (const PGresult *)result;
	ret->n = (size_t)PQntuples(rows);
	ret->seen = xcalloc(ret->n + 1, sizeof *ret->seen);
	for (size_t i = 0; i < ret->n; i++)
		ret->seen[i] = (struct way_seen){
		    .oid = (pg_oid)strtoul(PQgetvalue(rows, (int)i, 0), NULL, 10),
		    .routine = *PQgetvalue(rows, (int)i, 1) == 't',
		    .digest = hash(PQgetvalue(rows, (int)i, 2)),
		    .version = hash(PQgetvalue(rows, (int)i, 3)),
		};
	qsort(ret->seen, ret->n, sizeof *ret->seen, compare);
	return 0;
}

const struct way *ways_replaced(const struct ways *now, const struct endpoint *e)
{
	for (size_t i = 0; i < e->ways; i++) {
		const struct way_seen *s = find(now, &e->way[i]);
		if (!s || s->digest != e->way[i].digest)
			return &e->way[i];
	}
	return NULL;
}

bool ways_changed(const struct ways *before, const struct ways *now, const struct endpoint *e)
{
	for (size_t i = 0; i < e->ways; i++) {
		const struct way_seen *b = find(before, &e->way[i]), *n = find(now, &e->way[i]);
		if (!b != !n)
			return true;
		if (b && (b->digest != n->digest || b->version != n->version))
			return true;
	}
	return false;
}
