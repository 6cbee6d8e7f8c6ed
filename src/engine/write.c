#include <errno.h>
#include <libpq-fe.h>
#include <string.h>

#include "answer.h"
#include "provost/conn.h"
#include "provost/delay.h"
#include "provost/listener.h"
#include "provost/pool.h"
#include "run.h"

enum {
	FORGOTTEN_RETRIES = 2, /* of a statement that its session did not hold */
	UNSENT_RETRIES = 3,    /* of a connection that was dead before anything was sent */
	CANCELS = 4,           /* past the deadline: one may come between two statements ... */
	CANCEL_US = 250000,    /* ... so after this another is sent */
};

/* What is known of a transaction after a try. */
enum fate {
	FATE_UNDONE,
	FATE_COMMITTED,
	FATE_UNKNOWN, /* it may have been committed, or be yet */
};

/* Takes rows for the collector. What that cannot take is dropped and remembered: the transaction is
 * not to end because its answer is too large. */
struct write_sink {
	struct row_sink sink;
	struct collector collector;
	int failure;
};

/* One job on its way through the tries. */
struct write {
	struct engine *engine;
	struct job *job;
	uint64_t timeout_us;
	uint64_t deadline_us; /* all tries together; 0 before the first */
	unsigned conflicts, forgotten, unsent;
	struct run_counts counts;

	/* Of the latest try. */
	struct conn_step step[5];
	size_t steps;
	struct conn_step *statement, *commit;
	struct write_sink rows;
	struct sync sync;
	const char *payload; /* of the sync, or NULL: none is expected */
	bool sent;
	int ended; /* what the exchange returned */
	int cut;   /* -ETIMEDOUT or -ECANCELED when we cancelled it, else 0 */
};

static int take_row(struct row_sink *sink, struct pg_result **row)
{
	struct write_sink *k = (struct write_sink *)sink;
	if (k->failure == 0)
		k->failure = k->collector.sink.row(&k->collector.sink, row);
	return 0;
}

/* ---- one try ------------------------------------------------------------------------- */

static struct conn_step *add_token(struct write *w, struct conn_step *s)
{
	if (!w->payload)
		return s;
	*s = (struct conn_step){.sql = "/* provost */ SELECT pg_catalog.pg_notify('" CHANGE_CHANNEL
	                               "', $1)",
	                        .values = &w->payload,
	                        .texts = 1};
	return s + 1;
}

/* The transaction. The token is a statement of its own behind all others: inside one it would
 * overtake what that statement's triggers send. COMMIT has a Sync of its own, so that it is run
 * whatever happens, and the session is left idle. */
static void plan(struct write *w)
{
	const struct job *j = w->job;
	struct conn_step *s = w->step;
	*s++ = (struct conn_step){.sql = "/* provost */ BEGIN READ WRITE"};
	if (BROKEN(RULE_TOKEN))
		s = add_token(w, s);
	w->statement = s;
	*s++ = (struct conn_step){
	    .stmt = &j->endpoint->stmt, .values = j->values, .sink = &w->rows.sink};
	*s++ = (struct conn_step){.sql = "/* provost */ SET CONSTRAINTS ALL IMMEDIATE"};
	if (!BROKEN(RULE_TOKEN))
		s = add_token(w, s);
	s[-1].sync = true;
	w->commit = s;
	*s++ = (struct conn_step){.sql = "/* provost */ COMMIT", .sync = true};
	w->steps = (size_t)(s - w->step);
}

static void begin_try(struct write *w)
{
	w->rows = (struct write_sink){.sink.row = take_row};
	collector_init(&w->rows.collector, w->job->endpoint);
	w->payload = NULL;
	if (w->engine->listener) {
		listener_expect(w->engine->listener, &w->sync);
		w->payload = w->sync.payload;
	}
	w->sent = false;
	w->cut = 0;
	plan(w);
}

static void forget_token(struct write *w)
{
	if (w->payload)
		listener_forget(w->engine->listener, &w->sync);
	w->payload = NULL;
}

static void end_try(struct write *w)
{
	for (size_t i = 0; i < w->steps; i++)
		conn_result_free(&w->step[i].result);
	w->steps = 0;
	collector_done(&w->rows.collector);
}

static int receive(struct conn *c, uint64_t deadline_us)
{
	int r = 1;
	while (r == 1)
		r = conn_pipeline_next(c, deadline_us);
	return r;
}

/* COMMIT is under way behind what we cancel, and a cancel may come when the statement has just
 * ended: only what the server says tells how it was. */
static int see_how_it_ends(struct write *w, struct conn *c)
{
	int r = -ETIMEDOUT;
	conn_insist(c, true);
	for (unsigned i = 0; i < CANCELS && r == -ETIMEDOUT; i++) {
		if (pool_cancel(w->engine->pool, c) < 0)
			return r;
		r = receive(c, clock_us() + CANCEL_US);
	}
	return r;
}

static int exchange(struct write *w, struct conn *c)
{
	int r = conn_pipeline_begin(c, w->step, w->steps, &w->sent);
	if (r == 0)
		r = receive(c, w->deadline_us);
	if (r == -ETIMEDOUT || r == -ECANCELED) {
		w->cut = r;
		r = see_how_it_ends(w, c);
	}
	conn_pipeline_end(c);
	return r;
}

/* ---- what has become of it ----------------------------------------------------------- */

/* An error that the transaction cannot survive. One that ends the session is such only when it is
 * PostgreSQL's own, which names the place in its source: a pooler's says that the server was lost,
 * which may have been anywhere. */
static bool is_error(const struct pg_result *result)
{
	const PGresult *r = (const PGresult *)result;
	const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);
	return severity &&
	       (!strcmp(severity, "ERROR") || PQresultErrorField(r, PG_DIAG_SOURCE_FUNCTION));
}

static bool ended_session(const struct pg_result *result)
{
	const char *severity =
	    PQresultErrorField((const PGresult *)result, PG_DIAG_SEVERITY_NONLOCALIZED);
	return severity && strcmp(severity, "ERROR") != 0;
}

/* The first error, or NULL. */
static const struct pg_result *error_of(const struct write *w)
{
	for (size_t i = 0; i < w->steps; i++)
		if (is_error(w->step[i].result))
			return w->step[i].result;
	return NULL;
}

static enum fate fate_of(const struct write *w)
{
	const struct pg_result *error = error_of(w);
	const char *tag = conn_tag(w->commit->result);
	/* Before COMMIT's tag: where it was BEGIN that failed, as it does in recovery, COMMIT finds
	 * no transaction, warns, and has its tag nonetheless. */
	if (!w->sent || (error && error != w->commit->result))
		return FATE_UNDONE;
	if (!strcmp(tag, "COMMIT"))
		return FATE_COMMITTED;
	if (*tag)
		return FATE_UNDONE;
	/* A session that ended in COMMIT may have done so after it was durable. */
	return error && !ended_session(error) ? FATE_UNDONE : FATE_UNKNOWN;
}

/* What a transaction that has left nothing is to be told as. */
static void explain(struct write *w)
{
	struct answer *a = &w->job->answer;
	const struct pg_result *error = error_of(w);
	if (w->cut && (!error || !strcmp(conn_sqlstate(error), "57014"))) {
		a->outcome = w->cut == -ETIMEDOUT ? OUTCOME_DEADLINE : OUTCOME_STOPPING;
		return;
	}
	if (!error || ended_session(error)) {
		a->outcome = w->ended == -ENOMEM ? OUTCOME_NO_MEMORY : OUTCOME_DB_LOST;
		return;
	}
	answer_make(a, &w->rows.collector, error);
	/* So a server in recovery refuses to begin; read-only is what it is. */
	if (error == w->step[0].result && !strcmp(a->sqlstate, "0A000"))
		snprintf(a->sqlstate, sizeof a->sqlstate, "25006");
}

static bool has_answer(const struct write *w)
{
	return *conn_tag(w->statement->result) && w->rows.failure == 0;
}

/* What was committed is told as such, also when its rows have not come, or found no room. */
static void answer(struct write *w)
{
	struct answer *a = &w->job->answer;
	a->outcome = OUTCOME_OK;
	if (w->job->endpoint->returns == RETURNS_NONE)
		return;
	if (has_answer(w))
		answer_make(a, &w->rows.collector, w->statement->result);
	if (!has_answer(w) || a->outcome == OUTCOME_NO_MEMORY)
		a->outcome = OUTCOME_ANSWER_LOST;
}

/* Whether the listener has heard of the transaction. Where it may have missed it, everything is
 * old. */
static bool await(struct write *w)
{
	struct engine *e = w->engine;
	uint64_t begun = clock_us();
	bool stopping = w->cut == -ECANCELED;
	DELAY(DELAY_COMMIT);
	bool heard =
	    w->payload && listener_await(e->listener, &w->sync,
	                                 stopping ? begun + CANCELS * CANCEL_US : UINT64_MAX);
	w->payload = NULL;
	if (!heard)
		generations_raise_epoch(e->generations);
	DELAY(DELAY_ANSWER);
	w->job->answer.sync_us = (uint32_t)(clock_us() - begun);
	return heard;
}

/* ---- tries --------------------------------------------------------------------------- */

/* Whether to try again, now, what has left nothing. */
static bool may_retry(struct write *w)
{
	const struct pg_result *error = error_of(w);
	if (w->cut)
		return false;
	if (!w->sent)
		return w->unsent++ < UNSENT_RETRIES && clock_us() < w->deadline_us;
	if (conn_forgot(w->statement->result, &w->job->endpoint->stmt))
		return w->forgotten++ < FORGOTTEN_RETRIES && clock_us() < w->deadline_us;
	if (run_is_conflict(error) && w->conflicts < RUN_CONFLICTS_MAX)
		return run_pause(w->conflicts++, w->deadline_us);
	return false;
}

/* What the latest try has come to. True: to be tried again. */
static bool conclude(struct write *w)
{
	enum fate fate = fate_of(w);
	if (fate == FATE_UNDONE) {
		forget_token(w);
		if (may_retry(w))
			return true;
		explain(w);
	} else if (await(w) || fate == FATE_COMMITTED) {
		answer(w); /* a token comes of what was committed only */
	} else {
		w->job->answer.outcome = OUTCOME_UNKNOWN;
	}
	return false;
}

static bool attempt(struct write *w)
{
	struct job *j = w->job;
	struct conn *c;
	uint64_t now;
	if (run_borrow(w->engine, j, true, &c, &now) < 0)
		return false;
	if (!w->deadline_us)
		w->deadline_us = now + w->timeout_us;
	begin_try(w);
	w->counts.statements++;
	DELAY(DELAY_WRITE);
	w->ended = exchange(w, c);
	j->answer.db_us = (uint32_t)(clock_us() - now);
	/* Others need not wait for what this one waits for. */
	pool_release(w->engine->pool, &c);

	bool again = conclude(w);
	end_try(w);
	return again;
}

void write_run(struct engine *e, struct job *j, uint64_t timeout_us, struct run_counts *ret)
{
	struct write w = {.engine = e, .job = j, .timeout_us = timeout_us};
	while (attempt(&w))
		w.counts.retries++;
	*ret = w.counts;
	run_log_failure(j);
}
