#include "run.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "provost/conn.h"
#include "provost/delay.h"
#include "provost/log.h"
#include "provost/pool.h"

enum {
	LOST_RETRIES = 1,       /* of a read whose connection died: it may have been the cause */
	TERMINATED_RETRIES = 5, /* of one that an administrator ended, who may be ending them all */
	PAUSE_US = 10000,       /* before a retry: full jitter below it, doubling */
};

static enum outcome outcome_of_acquire(int r)
{
	switch (r) {
	case -ENOTCONN:
		return OUTCOME_DB_DOWN;
	case -ESHUTDOWN:
		return OUTCOME_STOPPING;
	default:
		return OUTCOME_POOL_TIMEOUT;
	}
}

static enum outcome outcome_of_cancel(int abandon)
{
	struct pollfd p = {.fd = abandon, .events = POLLIN};
	return poll(&p, 1, 0) > 0 ? OUTCOME_ABANDONED : OUTCOME_STOPPING;
}

enum outcome run_outcome(int r, int abandon)
{
	switch (r) {
	case -ETIMEDOUT:
		return OUTCOME_DEADLINE;
	case -ECANCELED:
		return outcome_of_cancel(abandon);
	case -E2BIG:
		return OUTCOME_TOO_LARGE;
	case -ENOMEM:
		return OUTCOME_NO_MEMORY;
	default:
		return OUTCOME_DB_LOST;
	}
}

bool run_is_conflict(const struct pg_result *r)
{
	const char *s = conn_sqlstate(r);
	return !strcmp(s, "40001") || !strcmp(s, "40P01");
}

bool run_pause(unsigned before, uint64_t deadline_us)
{
	uint64_t us = jitter((uint64_t)PAUSE_US << before);
	struct timespec t = {.tv_nsec = (long)us * 1000};
	if (clock_us() + us >= deadline_us)
		return false;
	nanosleep(&t, NULL);
	return true;
}

int run_borrow(struct engine *e, struct job *j, bool verify, struct conn **ret, uint64_t *ret_us)
{
	int r = pool_acquire(e->pool, verify, ret);
	*ret_us = clock_us();
	j->answer.queue_us = (uint32_t)(*ret_us - j->submitted_us);
	j->answer.outcome = r < 0 ? outcome_of_acquire(r) : OUTCOME_OK;
	return r;
}

/* One job on its way through the tries. */
struct run {
	struct engine *engine;
	struct job *job;
	int abandon;
	struct collector collector; /* of the latest try */
	struct pg_result *result;   /* likewise */
	uint64_t timeout_us;
	uint64_t deadline_us; /* of the statement, all tries together; 0 before the first */
	unsigned lost, conflicts;
	struct run_counts counts;
};

static void run_reset(struct run *x)
{
	conn_result_free(&x->result);
	collector_done(&x->collector);
	collector_init(&x->collector, x->job->endpoint);
}

static void run_done(struct run *x)
{
	conn_result_free(&x->result);
	collector_done(&x->collector);
}

/* One try: borrow, run, give back. */
static int attempt(struct run *x)
{
	struct job *j = x->job;
	struct conn *c;
	uint64_t now;
	run_reset(x);
	int r = run_borrow(x->engine, j, x->lost > 0, &c, &now);
	if (r < 0)
		return r;
	if (!x->deadline_us)
		x->deadline_us = now + x->timeout_us;
	DELAY(DELAY_FILL_START);
	job_note_start(x->engine, j);
	DELAY(DELAY_FILL_SEND);
	x->counts.statements++;
	conn_watch(c, x->abandon);
	r = conn_run(c, &j->endpoint->stmt, j->values, x->deadline_us, &x->collector.sink,
	             &x->result);
	DELAY(DELAY_FILL_RESULT);
	j->answer.db_us = (uint32_t)(clock_us() - now);
	if (r < 0)
		j->answer.outcome = run_outcome(r, x->abandon);
	pool_release(x->engine->pool, &c);
	return r;
}

/* Whether a read may be tried again on another connection. `words`: the server's last, if any. */
static bool may_follow_loss(const struct pg_result *words, unsigned lost)
{
	bool terminated = !strcmp(conn_sqlstate(words), "57P01");
	return lost < (terminated ? TERMINATED_RETRIES : LOST_RETRIES);
}

/* Whether to try again, now, after what `r` says of the latest try. */
static bool may_retry(struct run *x, int r)
{
	if (r == -ECONNRESET && may_follow_loss(x->result, x->lost)) {
		/* The first time at once: another connection is there, or being made. */
		unsigned before = x->lost++;
		return before == 0 ? clock_us() < x->deadline_us
		                   : run_pause(before, x->deadline_us);
	}
	if (r == 0 && run_is_conflict(x->result) && x->conflicts < RUN_CONFLICTS_MAX)
		return run_pause(x->conflicts++, x->deadline_us);
	return false;
}

static void run_tries(struct run *x)
{
	while (may_retry(x, attempt(x)))
		x->counts.retries++;
}

void run_log_failure(const struct job *j)
{
	static const char *const texts[OUTCOME_COUNT] = {
	    [OUTCOME_SQL_ERROR] = "statement failed",
	    [OUTCOME_DEADLINE] = "statement cancelled at its timeout",
	    [OUTCOME_TOO_LARGE] = "result too large",
	    [OUTCOME_DB_LOST] = "connection lost with the statement",
	    [OUTCOME_NO_MEMORY] = "out of memory",
	    [OUTCOME_UNKNOWN] = "connection lost with a write, which may have been committed",
	    [OUTCOME_ANSWER_LOST] = "a write was committed, and its answer is lost",
	};
	const struct answer *a = &j->answer;
	if (texts[a->outcome])
		log_warn(texts[a->outcome], LOGS("request", j->request_id),
		         LOGS("endpoint", j->endpoint->name),
		         LOGS("sqlstate", *a->sqlstate ? a->sqlstate : NULL),
		         LOGS("reason", a->message), LOGU("db_us", a->db_us));
}

void run_call(struct engine *e, struct job *j, uint64_t timeout_us)
{
	struct conn *c;
	uint64_t now;
	if (run_borrow(e, j, true, &c, &now) < 0)
		return;
	j->call->run(j->call, c, now + timeout_us);
	j->answer.db_us = (uint32_t)(clock_us() - now);
	pool_release(e->pool, &c);
}

void run_statement(struct engine *e, struct job *j, uint64_t timeout_us, int abandon,
                   struct run_counts *ret)
{
	struct run x = {.engine = e, .job = j, .timeout_us = timeout_us, .abandon = abandon};
	run_tries(&x);
	if (j->answer.outcome == OUTCOME_OK)
		answer_make(&j->answer, &x.collector, x.result);
	run_done(&x);
	ret->statements += x.counts.statements;
	ret->retries += x.counts.retries;
	run_log_failure(j);
}
