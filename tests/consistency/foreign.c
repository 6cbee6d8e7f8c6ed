/* Writes that Provost does not make: straight to PostgreSQL, by libpq. */
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

enum { PROBE_PAUSE_US = 500 }; /* a core is not to be busy with asking */

enum outcome { COMMITTED, ROLLED_BACK, UNKNOWN };

#define BUMP                                                                                       \
	"WITH l AS (SELECT id FROM item WHERE id = ANY ($1::integer[]) ORDER BY id FOR UPDATE),"   \
	" i AS (UPDATE item SET v = v + 1, w = $2::bigint, grp = group_of(item.id, v + 1)"         \
	"       FROM l WHERE item.id = l.id RETURNING item.id, item.v),"                           \
	" n AS (UPDATE note SET v = i.v FROM i WHERE note.item = i.id)"                            \
	" SELECT id, v FROM i"

struct session {
	struct worker *x;
	PGconn *c;
};

static bool connected(struct session *s)
{
	if (s->c && PQstatus(s->c) == CONNECTION_OK)
		return true;
	PQfinish(s->c);
	s->c = PQconnectdb(s->x->w->dsn);
	if (PQstatus(s->c) == CONNECTION_OK)
		return true;
	worker_pause(s->x, 20000);
	return false;
}

/* What it returns, or NULL when it failed. */
static PGresult *run(struct session *s, const char *sql, int n, const char *const *values)
{
	PGresult *r = PQexecParams(s->c, sql, n, NULL, values, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(r);
	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return r;
	PQclear(r);
	return NULL;
}

static bool command(struct session *s, const char *sql)
{
	PGresult *r = run(s, sql, 0, NULL);
	bool ok = r != NULL;
	PQclear(r);
	return ok;
}

/* The versions of the rows, 0 where there is none. */
static bool bump(struct session *s, const int *row, int n, int64_t stamp, int64_t *v)
{
	char ids[16 * WIDE], w[32];
	const char *values[] = {ids, w};
	int at = sprintf(ids, "{");
	for (int i = 0; i < n; i++)
		at += sprintf(ids + at, "%s%d", i ? "," : "", row[i]);
	sprintf(ids + at, "}");
	sprintf(w, "%" PRId64, stamp);
	PGresult *r = run(s, BUMP, 2, values);
	memset(v, 0, (size_t)n * sizeof *v);
	for (int k = 0; r && k < PQntuples(r); k++)
		for (int i = 0; i < n; i++)
			if (atoi(PQgetvalue(r, k, 0)) == row[i])
				v[i] = atoll(PQgetvalue(r, k, 1));
	PQclear(r);
	return r != NULL;
}

static void conclude(struct session *s, enum outcome o, const int *row, const int64_t *v, int n)
{
	struct counts *c = &s->x->w->n;
	for (int i = 0; i < n && o != UNKNOWN; i++) {
		if (o == COMMITTED && v[i])
			model_committed(&s->x->w->m, &row[i], &v[i], 1, false);
		else
			model_failed(&s->x->w->m, &row[i], 1);
	}
	atomic_fetch_add(o == COMMITTED     ? &c->foreign
	                 : o == ROLLED_BACK ? &c->foreign_rolled_back
	                                    : &c->foreign_unknown,
	                 1);
}

/* What a failure means: a server that says so has rolled back. */
static enum outcome failure(struct session *s)
{
	return PQstatus(s->c) == CONNECTION_OK ? ROLLED_BACK : UNKNOWN;
}

/* One statement, committed by itself. */
static enum outcome one_statement(struct session *s, const int *row, int n, int64_t *v)
{
	return bump(s, row, n, worker_stamp(s->x, false), v) ? COMMITTED : failure(s);
}

/* Two statements and what is to become of them. */
static enum outcome transaction(struct session *s, const int *row, int n, int64_t *v,
                                bool rolls_back)
{
	int64_t w = worker_stamp(s->x, rolls_back);
	if (!command(s, "BEGIN"))
		return failure(s);
	bool ok = bump(s, row, n / 2, w, v);
	worker_pause(s->x, 300);
	ok = ok && bump(s, row + n / 2, n - n / 2, w, v + n / 2);
	if (!ok || (rolls_back && worker_random(s->x, 2))) {
		(void)command(s, "ROLLBACK");
		return PQstatus(s->c) == CONNECTION_OK ? ROLLED_BACK : UNKNOWN;
	}
	PGresult *r = PQexec(s->c, "COMMIT");
	enum outcome o = PQresultStatus(r) != PGRES_COMMAND_OK   ? failure(s)
	                 : strcmp(PQcmdStatus(r), "COMMIT") == 0 ? COMMITTED
	                                                         : ROLLED_BACK;
	PQclear(r);
	return o;
}

/* The row goes and comes back. */
static enum outcome replace(struct session *s, const int *row, int64_t *v)
{
	char id[16], w[32], next[32] = "0";
	const char *values[] = {id, w, next};
	sprintf(id, "%d", row[0]);
	sprintf(w, "%" PRId64, worker_stamp(s->x, false));
	if (!command(s, "BEGIN"))
		return failure(s);
	PGresult *r = run(s, "DELETE FROM item WHERE id = $1::integer RETURNING v + 1", 1, values);
	if (r && PQntuples(r) == 1)
		snprintf(next, sizeof next, "%s", PQgetvalue(r, 0, 0));
	PQclear(r);
	*v = atoll(next);
	const char *note[] = {id, next};
	r = *v == 0 ? NULL
	            : run(s,
	                  "INSERT INTO item SELECT $1::integer, key_of($1::integer),"
	                  " group_of($1::integer, $3::bigint), $3::bigint, $2::bigint",
	                  3, values);
	PQclear(r);
	bool ok = r != NULL;
	r = ok ? run(s, "UPDATE note SET v = $2::bigint WHERE item = $1::integer", 2, note) : NULL;
	PQclear(r);
	if (r && command(s, "COMMIT"))
		return COMMITTED;
	if (PQstatus(s->c) == CONNECTION_OK && command(s, "ROLLBACK"))
		return ROLLED_BACK;
	return UNKNOWN;
}

/* The table is emptied, and everything comes back a version later. */
static enum outcome refill(struct session *s, int64_t *v)
{
	static const char *const commands[] = {
	    "BEGIN",
	    "LOCK TABLE item, note",
	    "CREATE TEMP TABLE refill ON COMMIT DROP AS SELECT id, key, v + 1 AS v FROM item",
	    "TRUNCATE item, note",
	    "INSERT INTO item SELECT id, key, group_of(id, v), v, 0 FROM refill",
	    "INSERT INTO note SELECT id, v FROM refill",
	};
	bool ok = true;
	for (size_t i = 0; ok && i < sizeof commands / sizeof *commands; i++)
		ok = command(s, commands[i]);
	PGresult *r = ok ? run(s, "SELECT id, v FROM refill", 0, NULL) : NULL;
	for (int i = 0; r && i < PQntuples(r); i++)
		v[atoi(PQgetvalue(r, i, 0))] = atoll(PQgetvalue(r, i, 1));
	PQclear(r);
	if (r && command(s, "COMMIT"))
		return COMMITTED;
	if (PQstatus(s->c) == CONNECTION_OK && command(s, "ROLLBACK"))
		return ROLLED_BACK;
	return UNKNOWN;
}

static void refill_all(struct session *s)
{
	struct model *m = &s->x->w->m;
	int *row = calloc((size_t)m->rows, sizeof *row);
	int64_t *v = calloc((size_t)m->rows, sizeof *v);
	if (!row || !v)
		abort();
	for (int i = 0; i < m->rows; i++)
		row[i] = i;
	model_write(m, row, m->rows);
	enum outcome o = refill(s, v);
	conclude(s, o, row, v, m->rows);
	atomic_fetch_add(&s->x->w->n.truncated, o == COMMITTED);
	free(row);
	free(v);
}

static void write_foreign(struct session *s)
{
	int row[WIDE], n = 1;
	int64_t v[WIDE] = {0};
	uint64_t dice = worker_random(s->x, 100);
	bool wide = atomic_exchange(&s->x->w->wide, 0) > 0;
	if (wide)
		n = worker_rows(s->x, WIDE, row);
	else if (dice < 70)
		row[0] = worker_row(s->x);
	else if (dice < 95)
		n = worker_rows(s->x, 2 + (int)worker_random(s->x, 18), row);
	else
		row[0] = worker_row(s->x);
	model_write(&s->x->w->m, row, n);
	enum outcome o;
	if (wide || dice < 80)
		o = one_statement(s, row, n, v);
	else if (dice < 95)
		o = transaction(s, row, n, v, dice < 88);
	else
		o = replace(s, row, v);
	conclude(s, o, row, v, n);
	atomic_fetch_add(&s->x->w->n.wide, wide && o == COMMITTED);
}

void *work_foreign(void *worker)
{
	struct worker *x = worker;
	struct session s = {.x = x};
	while (!atomic_load(&x->w->stop)) {
		if (!connected(&s))
			continue;
		if (atomic_exchange(&x->w->truncate, 0) > 0)
			refill_all(&s);
		else
			write_foreign(&s);
		worker_pause(x, x->w->write_pause_us);
	}
	PQfinish(s.c);
	return NULL;
}

/* ---- how long a foreign commit takes to be seen -------------------------------------- */

static void probe(struct session *s, int row)
{
	struct work *w = s->x->w;
	const struct view *view = &w->m.view[w->m.first[VIEW_ITEM] + row];
	int64_t v;
	/* So that there is something stored that the commit makes old. */
	(void)worker_look(s->x, view);
	(void)worker_look(s->x, view);
	model_write(&w->m, &row, 1);
	enum outcome o = one_statement(s, &row, 1, &v);
	uint64_t since = work_now_us();
	conclude(s, o, &row, &v, 1);
	if (o != COMMITTED)
		return;
	while (!atomic_load(&w->stop)) {
		if (worker_look(s->x, view) >= v) {
			work_time(w, w->lag, since);
			return;
		}
		worker_pause(s->x, PROBE_PAUSE_US);
	}
}

void *work_probe(void *worker)
{
	struct worker *x = worker;
	struct session s = {.x = x};
	for (int i = 0; !atomic_load(&x->w->stop); i++) {
		if (connected(&s))
			probe(&s, x->w->m.rows - 1 - i % PROBES);
		worker_pause(x, 20000);
	}
	PQfinish(s.c);
	return NULL;
}
