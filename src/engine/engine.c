#include "provost/engine.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "provost/conn.h"
#include "provost/log.h"
#include "provost/pool.h"

enum {
	CONFLICT_RETRIES = 3,   /* of 40001 and 40P01 */
	LOST_RETRIES = 1,       /* of a read whose connection died: it may have been the cause */
	TERMINATED_RETRIES = 5, /* of one that an administrator ended, who may be ending them all */
	PAUSE_US = 10000,       /* before a retry: full jitter below it, doubling */
};

struct worker {
	struct engine *engine;
	unsigned index;
	pthread_t thread;
	bool started; /* the configuring thread's: to be joined */
	bool exited;  /* under the engine's lock */
};

struct engine {
	struct pool *pool;

	pthread_mutex_t lock; /* guards everything below but what worker[] says is another's */
	pthread_cond_t work;
	pthread_cond_t idle; /* stopping, and nothing runs any more */
	struct engine_options options;
	TAILQ_HEAD(, job) queue; /* oldest first */
	unsigned waiting, busy;
	bool stopping;
	uint64_t jobs, refused, expired, retries;

	struct worker worker[ENGINE_THREADS_MAX];
};

/* ---- one job ------------------------------------------------------------------------- */

static void complete(struct job *j, enum outcome outcome)
{
	j->answer.outcome = outcome;
	j->done(j);
}

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

static enum outcome outcome_of_run(int r)
{
	switch (r) {
	case -ETIMEDOUT:
		return OUTCOME_DEADLINE;
	case -ECANCELED:
		return OUTCOME_STOPPING;
	case -E2BIG:
		return OUTCOME_TOO_LARGE;
	case -ENOMEM:
		return OUTCOME_NO_MEMORY;
	default:
		return OUTCOME_DB_LOST;
	}
}

static bool is_conflict(const struct pg_result *r)
{
	const char *s = conn_sqlstate(r);
	return !strcmp(s, "40001") || !strcmp(s, "40P01");
}

static void pause_before_retry(unsigned retry)
{
	uint64_t us = jitter((uint64_t)PAUSE_US << retry);
	struct timespec t = {.tv_nsec = (long)us * 1000};
	nanosleep(&t, NULL);
}

static void count_retry(struct engine *e)
{
	pthread_mutex_lock(&e->lock);
	e->retries++;
	pthread_mutex_unlock(&e->lock);
}

/* One try: borrow, run, give back. */
static int attempt(struct engine *e, struct job *j, bool verify, uint64_t timeout_us,
                   struct pg_result **ret, enum outcome *ret_outcome)
{
	struct conn *c;
	int r = pool_acquire(e->pool, verify, &c);
	uint64_t now = clock_us();
	j->answer.queue_us = (uint32_t)(now - j->submitted_us);
	if (r < 0) {
		*ret_outcome = outcome_of_acquire(r);
		return r;
	}
	r = conn_run(c, &j->endpoint->stmt, j->values, now + timeout_us, ret);
	j->answer.db_us = (uint32_t)(clock_us() - now);
	*ret_outcome = outcome_of_run(r);
	pool_release(e->pool, &c);
	return r;
}

/* Whether a read may be tried again on another connection. `words`: the server's last, if any. */
static bool may_follow_loss(const struct pg_result *words, unsigned lost)
{
	bool terminated = !strcmp(conn_sqlstate(words), "57P01");
	return lost < (terminated ? TERMINATED_RETRIES : LOST_RETRIES);
}

static enum outcome run_statement(struct engine *e, struct job *j, uint64_t timeout_us,
                                  struct pg_result **ret)
{
	enum outcome outcome = OUTCOME_OK;
	unsigned lost = 0, conflicts = 0;
	for (;;) {
		int r = attempt(e, j, lost > 0, timeout_us, ret, &outcome);
		if (r == -ECONNRESET && may_follow_loss(*ret, lost)) {
			conn_result_free(ret);
			if (lost++ > 0)
				pause_before_retry(lost);
		} else if (r == 0 && is_conflict(*ret) && conflicts < CONFLICT_RETRIES) {
			conn_result_free(ret);
			pause_before_retry(conflicts++);
		} else if (r == 0) {
			return OUTCOME_OK;
		} else {
			conn_result_free(ret);
			return outcome;
		}
		count_retry(e);
	}
}

static void log_failure(const struct job *j)
{
	const struct answer *a = &j->answer;
	if (a->outcome == OUTCOME_SQL_ERROR)
		log_warn("statement failed", LOGS("request", j->request_id),
		         LOGS("endpoint", j->endpoint->name), LOGS("sqlstate", a->sqlstate),
		         LOGS("reason", a->message));
	else if (a->outcome == OUTCOME_DEADLINE)
		log_warn("statement cancelled at its timeout", LOGS("request", j->request_id),
		         LOGS("endpoint", j->endpoint->name), LOGU("db_us", a->db_us));
	else if (a->outcome == OUTCOME_TOO_LARGE)
		log_warn("result too large", LOGS("request", j->request_id),
		         LOGS("endpoint", j->endpoint->name));
}

static void run_job(struct engine *e, struct job *j, const struct engine_options *o)
{
	_cleanup_result_ struct pg_result *result = NULL;
	int64_t own = j->endpoint->timeout_ms;
	int64_t timeout_ms = own >= 0 ? own : o->statement_timeout_ms;
	enum outcome outcome = run_statement(e, j, (uint64_t)timeout_ms * 1000, &result);
	j->answer.outcome = outcome;
	if (outcome == OUTCOME_OK)
		answer_from_result(&j->answer, j->endpoint, &result);
	log_failure(j);
	j->done(j);
}

/* ---- the queue ----------------------------------------------------------------------- */

static struct job *take_first_locked(struct engine *e)
{
	struct job *j = TAILQ_FIRST(&e->queue);
	if (j) {
		TAILQ_REMOVE(&e->queue, j, link);
		e->waiting--;
	}
	return j;
}

int engine_submit(struct engine *e, struct job *j)
{
	int r = 0;
	j->answer = (struct answer){0};
	j->submitted_us = clock_us();
	pthread_mutex_lock(&e->lock);
	if (e->stopping) {
		r = -ESHUTDOWN;
	} else if (e->waiting >= e->options.queue) {
		e->refused++;
		r = -EAGAIN;
	} else {
		e->jobs++;
		e->waiting++;
		TAILQ_INSERT_TAIL(&e->queue, j, link);
	}
	pthread_mutex_unlock(&e->lock);
	/* Behind the unlock, so that the worker does not wake only to wait for the lock. */
	if (r == 0)
		pthread_cond_signal(&e->work);
	return r;
}

static bool is_overdue(const struct engine *e, const struct job *j, uint64_t now_us)
{
	return now_us >= j->submitted_us + (uint64_t)e->options.queue_timeout_ms * 1000;
}

void engine_expire(struct engine *e, uint64_t now_us)
{
	/* All jobs wait equally long, so the first in the queue is the first to be overdue. */
	for (;;) {
		struct job *j = NULL;
		pthread_mutex_lock(&e->lock);
		if (!TAILQ_EMPTY(&e->queue) && is_overdue(e, TAILQ_FIRST(&e->queue), now_us)) {
			j = take_first_locked(e);
			e->expired++;
		}
		pthread_mutex_unlock(&e->lock);
		if (!j)
			return;
		j->answer.queue_us = (uint32_t)(now_us - j->submitted_us);
		complete(j, OUTCOME_QUEUE_TIMEOUT);
	}
}

/* ---- workers ------------------------------------------------------------------------- */

static bool is_retired_locked(const struct engine *e, const struct worker *w)
{
	return e->stopping || w->index >= e->options.threads;
}

static struct job *next_job(struct worker *w, struct engine_options *ret_options)
{
	struct engine *e = w->engine;
	struct job *j = NULL;
	pthread_mutex_lock(&e->lock);
	while (!is_retired_locked(e, w) && TAILQ_EMPTY(&e->queue))
		pthread_cond_wait(&e->work, &e->lock);
	if (!is_retired_locked(e, w)) {
		j = take_first_locked(e);
		e->busy++;
	} else {
		w->exited = true;
		/* The signal that woke us may have been meant for a worker that stays. */
		pthread_cond_signal(&e->work);
	}
	*ret_options = e->options;
	pthread_mutex_unlock(&e->lock);
	return j;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct engine *e = w->engine;
	struct engine_options o;
	struct job *j;
	pthread_setname_np(pthread_self(), "worker");
	while ((j = next_job(w, &o))) {
		run_job(e, j, &o);
		pthread_mutex_lock(&e->lock);
		if (--e->busy == 0 && e->stopping)
			pthread_cond_signal(&e->idle);
		pthread_mutex_unlock(&e->lock);
	}
	return NULL;
}

static bool has_exited(struct worker *w)
{
	pthread_mutex_lock(&w->engine->lock);
	bool exited = w->exited;
	pthread_mutex_unlock(&w->engine->lock);
	return exited;
}

/* Starts the workers that are missing. Those past the configured number leave after the job they
 * are at, and are not waited for: a reload must not take as long as a statement. */
static int start_missing(struct engine *e)
{
	for (unsigned i = 0; i < e->options.threads; i++) {
		struct worker *w = &e->worker[i];
		if (w->started && !has_exited(w))
			continue;
		if (w->started)
			pthread_join(w->thread, NULL);
		w->exited = false;
		int r = pthread_create(&w->thread, NULL, work, w);
		w->started = r == 0;
		if (r != 0)
			return -r;
	}
	return 0;
}

/* ---- life ---------------------------------------------------------------------------- */

struct engine *engine_new(const struct engine_options *o, struct pool *pool)
{
	struct engine *e = xcalloc(1, sizeof *e);
	ALWAYS(o->threads > 0 && o->threads <= ENGINE_THREADS_MAX);
	e->pool = pool;
	e->options = *o;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->work, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->idle, &attr);
	pthread_condattr_destroy(&attr);
	TAILQ_INIT(&e->queue);
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++)
		e->worker[i] = (struct worker){.engine = e, .index = i};
	return e;
}

int engine_start(struct engine *e)
{
	return start_missing(e);
}

int engine_configure(struct engine *e, const struct engine_options *o)
{
	ALWAYS(o->threads > 0 && o->threads <= ENGINE_THREADS_MAX);
	pthread_mutex_lock(&e->lock);
	e->options = *o;
	pthread_cond_broadcast(&e->work);
	pthread_mutex_unlock(&e->lock);
	return start_missing(e);
}

/* Whether the jobs that run have ended by then. */
static bool wait_idle(struct engine *e, uint64_t until_us)
{
	struct timespec until = {.tv_sec = (time_t)(until_us / 1000000),
	                         .tv_nsec = (long)(until_us % 1000000) * 1000};
	int r = 0;
	pthread_mutex_lock(&e->lock);
	while (e->busy > 0 && r == 0)
		r = pthread_cond_timedwait(&e->idle, &e->lock, &until);
	bool idle = e->busy == 0;
	pthread_mutex_unlock(&e->lock);
	return idle;
}

void engine_stop(struct engine *e, uint64_t until_us)
{
	struct job *j;
	pthread_mutex_lock(&e->lock);
	e->stopping = true;
	pthread_cond_broadcast(&e->work);
	pthread_mutex_unlock(&e->lock);
	for (;;) {
		pthread_mutex_lock(&e->lock);
		j = take_first_locked(e);
		pthread_mutex_unlock(&e->lock);
		if (!j)
			break;
		complete(j, OUTCOME_STOPPING);
	}
	if (!wait_idle(e, until_us))
		pool_interrupt(e->pool);
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++) {
		if (e->worker[i].started)
			pthread_join(e->worker[i].thread, NULL);
		e->worker[i].started = false;
	}
}

void engine_free(struct engine **ep)
{
	struct engine *e = *ep;
	if (!e)
		return;
	*ep = NULL;
	ALWAYS(TAILQ_EMPTY(&e->queue));
	pthread_cond_destroy(&e->work);
	pthread_cond_destroy(&e->idle);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
	pthread_mutex_lock(&e->lock);
	*ret = (struct engine_stats){
	    .threads = e->options.threads,
	    .busy = e->busy,
	    .waiting = e->waiting,
	    .jobs = e->jobs,
	    .refused = e->refused,
	    .expired = e->expired,
	    .retries = e->retries,
	};
	pthread_mutex_unlock(&e->lock);
}
