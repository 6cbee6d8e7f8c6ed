#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "conn_impl.h"

enum {
	TEXTS_MAX = 4,
	OID_TEXT = 25,
	RESULTS_PER_STEP = 4, /* at most: of a DEALLOCATE, a Prepare, an Execute, a Sync */
};

static int lost(struct conn *c)
{
	c->broken = true;
	return -ECONNRESET;
}

/* ---- what is prepared ---------------------------------------------------------------- */

static struct prepared *find_prepared(const struct conn *c, uint64_t id)
{
	for (size_t i = 0; i < c->prepareds; i++)
		if (c->prepared[i].id == id)
			return &c->prepared[i];
	return NULL;
}

bool pipeline_holds(const struct conn *c, uint64_t id)
{
	return find_prepared(c, id);
}

/* So that noting what is prepared cannot fail: the session would hold what we do not know of. */
static int room_for_prepared(struct conn *c, size_t more)
{
	size_t cap = c->prepared_cap ? c->prepared_cap : 32;
	while (cap < c->prepareds + more)
		cap *= 2;
	if (cap == c->prepared_cap)
		return 0;
	struct prepared *p = realloc(c->prepared, cap * sizeof *p);
	if (!p)
		return -ENOMEM;
	c->prepared = p;
	c->prepared_cap = cap;
	return 0;
}

static void note_prepared(struct conn *c, uint64_t id)
{
	if (find_prepared(c, id))
		return;
	ALWAYS(c->prepareds < c->prepared_cap);
	c->prepared[c->prepareds++] = (struct prepared){.id = id};
}

static void forget_prepared(struct conn *c, uint64_t id)
{
	struct prepared *p = find_prepared(c, id);
	if (p)
		*p = c->prepared[--c->prepareds];
}

/* Whether an earlier step of the pipeline prepares it. */
static bool is_being_prepared(const struct conn *c, uint64_t id)
{
	for (size_t i = c->next; i < c->expecteds; i++)
		if (c->expected[i].kind == EXPECT_PREPARED && c->expected[i].id == id)
			return true;
	return false;
}

/* What a result says of what the session holds. A prepared statement outlives the failure of what
 * is run after it, and the end of its transaction, also if those were given up and this is the
 * drain. */
static void learn(struct conn *c, const struct expected *x, const struct pg_result *r)
{
	bool ok = PQresultStatus((const PGresult *)r) == PGRES_COMMAND_OK;
	char name[sizeof((struct stmt *)0)->name];
	if (!x->id)
		return;
	if (x->kind == EXPECT_PREPARED && ok)
		note_prepared(c, x->id);
	else if (x->kind == EXPECT_DEALLOCATED && ok)
		forget_prepared(c, x->id);
	if (!*conn_sqlstate(r))
		return;
	stmt_name(x->id, name, sizeof name);
	struct prepared *p = find_prepared(c, x->id);
	if (conn_has_gone(r, name))
		forget_prepared(c, x->id);
	else if (p && conn_has_changed(r))
		p->stale = true;
}

/* ---- sending ------------------------------------------------------------------------- */

int pipeline_room(struct conn *c, size_t results)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	size_t outstanding = c->expecteds - c->next;
	if (outstanding > 0)
		memmove(c->expected, c->expected + c->next, outstanding * sizeof *c->expected);
	c->next = 0;
	c->expecteds = outstanding;
	if (outstanding + results <= c->expected_cap)
		return 0;
	struct expected *x = realloc(c->expected, (outstanding + results) * sizeof *x);
	if (!x)
		return -ENOMEM;
	c->expected = x;
	c->expected_cap = outstanding + results;
	return 0;
}

int pipeline_sent(struct conn *c, int ok, struct conn_step *step, enum expectation kind,
                  uint64_t id)
{
	if (!ok)
		return lost(c);
	ALWAYS(c->expecteds < c->expected_cap);
	c->expected[c->expecteds++] = (struct expected){.kind = kind, .step = step, .id = id};
	return 0;
}

/* libpq's buffer stays as large as what was sent through it. */
static void weigh(struct conn *c, const char *const *values, size_t n)
{
	size_t bytes = 0;
	for (size_t i = 0; i < n; i++)
		bytes += values[i] ? strlen(values[i]) : 0;
	if (bytes > CONN_KEPT_MAX)
		c->bloated = true;
}

static int send_text(struct conn *c, struct conn_step *step)
{
	static const pg_oid oid[TEXTS_MAX] = {OID_TEXT, OID_TEXT, OID_TEXT, OID_TEXT};
	ALWAYS(step->texts <= TEXTS_MAX);
	int ok =
	    PQsendQueryParams(c->pg, step->sql, (int)step->texts, oid, step->values, NULL, NULL, 0);
	return pipeline_sent(c, ok, step, EXPECT_RESULT, 0);
}

/* Has the session hold the statement, if it does not. */
static int send_prepare(struct conn *c, struct conn_step *step)
{
	const struct stmt *s = step->stmt;
	const struct prepared *p = find_prepared(c, s->id);
	char sql[64];
	int r = 0;
	if ((p && !p->stale) || is_being_prepared(c, s->id))
		return 0;
	if (p) {
		snprintf(sql, sizeof sql, "/* provost */ DEALLOCATE %s", s->name);
		int ok = PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 0);
		r = pipeline_sent(c, ok, step, EXPECT_DEALLOCATED, s->id);
	}
	if (r == 0)
		r = pipeline_sent(c, PQsendPrepare(c->pg, s->name, s->sql, (int)s->binds, s->oid),
		                  step, EXPECT_PREPARED, s->id);
	return r;
}

static int send_statement(struct conn *c, struct conn_step *step)
{
	const struct stmt *s = step->stmt;
	int n = (int)s->binds, r = 0, ok;
	weigh(c, step->values, s->binds);
	if (c->prepare)
		r = send_prepare(c, step);
	if (r < 0)
		return r;
	if (c->prepare)
		ok = PQsendQueryPrepared(c->pg, s->name, n, step->values, NULL, NULL, 0);
	else
		ok = PQsendQueryParams(c->pg, s->sql, n, s->oid, step->values, NULL, NULL, 0);
	return pipeline_sent(c, ok, step, EXPECT_RESULT, s->id);
}

static int send_step(struct conn *c, struct conn_step *step)
{
	int r = step->stmt ? send_statement(c, step) : send_text(c, step);
	if (r == 0 && step->sync)
		r = pipeline_sent(c, PQpipelineSync(c->pg), step, EXPECT_SYNC, 0);
	return r;
}

/* ---- receiving ----------------------------------------------------------------------- */

static bool is_error(const PGresult *r)
{
	return PQresultStatus(r) == PGRES_FATAL_ERROR;
}

/* The rows of the command that libpq is at come one by one, if there is somebody to take them, or
 * to be dropped. It refuses, harmlessly, for a command that returns none. */
static void ask_for_rows(struct conn *c)
{
	if (c->next == c->expecteds)
		return;
	const struct expected *x = &c->expected[c->next];
	if (x->kind == EXPECT_RESULT && (!x->step || x->step->sink))
		(void)PQsetSingleRowMode(c->pg);
}

static void advance(struct conn *c)
{
	c->next++;
	c->answered = false;
	ask_for_rows(c);
}

/* What libpq has to say of the end of a connection, in place of the server. */
static bool is_obituary(const struct conn *c, const PGresult *r)
{
	return PQstatus(c->pg) == CONNECTION_BAD && is_error(r) &&
	       !PQresultErrorField(r, PG_DIAG_SQLSTATE);
}

/* A step's result is that of what it asks for, or the first error on the way there. At the Sync
 * only last words can come; a result that is there is not spoilt by them. */
static bool is_kept(const struct conn *c, const struct expected *x, const PGresult *r)
{
	if (!x->step || PQresultStatus(r) == PGRES_PIPELINE_ABORTED || is_obituary(c, r))
		return false;
	const PGresult *kept = (const PGresult *)x->step->result;
	if (x->kind == EXPECT_SYNC)
		return !kept && is_error(r);
	return (x->kind == EXPECT_RESULT || is_error(r)) && !(kept && is_error(kept));
}

static int take_row(struct conn *c, const struct expected *x, PGresult *r)
{
	struct row_sink *sink = x->step ? x->step->sink : NULL;
	struct pg_result *row = (struct pg_result *)r;
	int err = sink ? sink->row(sink, &row) : 0;
	conn_result_free(&row);
	if (err < 0)
		c->broken = true; /* the rest is still coming, and nobody wants it */
	return err;
}

/* One result of the command that we are at. */
static int take_result(struct conn *c, PGresult *r)
{
	const struct expected *x = &c->expected[c->next];
	if (PQresultMemorySize(r) > CONN_KEPT_MAX)
		c->bloated = true;
	if (PQresultStatus(r) == PGRES_SINGLE_TUPLE)
		return take_row(c, x, r);
	c->answered = true;
	c->refused |= !x->step && is_error(r);
	learn(c, x, (const struct pg_result *)r);
	if (is_kept(c, x, r)) {
		conn_result_free(&x->step->result);
		x->step->result = (struct pg_result *)r;
	} else {
		PQclear(r);
	}
	return 0;
}

/* Takes one result, or the end of a command (NULL), which libpq has ready. 1: a Sync is reached. */
static int take(struct conn *c, PGresult *r)
{
	bool at_sync = c->next < c->expecteds && c->expected[c->next].kind == EXPECT_SYNC;
	bool is_sync = PQresultStatus(r) == PGRES_PIPELINE_SYNC;
	if (c->next == c->expecteds || (r ? is_sync && !at_sync : !c->answered || at_sync)) {
		/* libpq and we disagree about what is outstanding. */
		PQclear(r);
		return lost(c);
	}
	if (is_sync)
		PQclear(r);
	else if (r)
		return take_result(c, r);
	advance(c);
	return is_sync;
}

int pipeline_take(struct conn *c)
{
	int r = 0;
	while (r == 0 && c->next < c->expecteds && !PQisBusy(c->pg))
		r = take(c, PQgetResult(c->pg));
	return r;
}

/* ---- the whole ----------------------------------------------------------------------- */

int conn_pipeline_begin(struct conn *c, struct conn_step *step, size_t steps, bool *ret_sent)
{
	ALWAYS(steps > 0 && step[steps - 1].sync && c->next == c->expecteds);
	for (size_t i = 0; i < steps; i++)
		step[i].result = NULL;
	int r = pipeline_room(c, RESULTS_PER_STEP * steps);
	if (r == 0)
		r = room_for_prepared(c, steps);
	for (size_t i = 0; i < steps && r == 0; i++)
		r = send_step(c, &step[i]);
	/* The server's last words, if they are the reason. */
	while (r == -ECONNRESET && pipeline_take(c) == 1)
		;
	/* Without a whole command there is nothing that the server could have done. */
	if (ret_sent)
		*ret_sent = c->expecteds > 0;
	return r;
}

int conn_pipeline_next(struct conn *c, uint64_t deadline_us)
{
	bool dead = false;
	CHECK_MAGIC(c, CONN_MAGIC);
	ask_for_rows(c);
	for (;;) {
		int r = pipeline_take(c);
		if (r != 0)
			return r < 0 ? r : c->next < c->expecteds;
		/* The server's last words, if any, were in what was read before the end. */
		if (dead)
			return lost(c);
		int flushing = PQflush(c->pg);
		if (flushing < 0) {
			dead = true;
			continue;
		}
		r = conn_wait(c, flushing ? POLLIN | POLLOUT : POLLIN, deadline_us);
		if (r < 0)
			return r;
		dead = !PQconsumeInput(c->pg);
	}
}

void conn_pipeline_end(struct conn *c)
{
	for (size_t i = c->next; i < c->expecteds; i++)
		c->expected[i].step = NULL;
}

int conn_pipeline(struct conn *c, struct conn_step *step, size_t steps, uint64_t deadline_us,
                  bool *ret_sent)
{
	int r = conn_pipeline_begin(c, step, steps, ret_sent);
	if (r == 0)
		r = 1;
	while (r == 1)
		r = conn_pipeline_next(c, deadline_us);
	conn_pipeline_end(c);
	return r;
}

/* ---- what was given up --------------------------------------------------------------- */

enum conn_condition conn_drain(struct conn *c)
{
	if (PQflush(c->pg) < 0 || !PQconsumeInput(c->pg)) {
		c->broken = true;
		return CONN_BROKEN;
	}
	ask_for_rows(c);
	while (pipeline_take(c) == 1)
		;
	return conn_condition(c);
}
