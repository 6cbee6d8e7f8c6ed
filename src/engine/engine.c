#include "provost/engine.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "provost/log.h"
#include "provost/pool.h"
#include "run.h"

enum { REPORT_INTERVAL_US = 2000000 }; /* between lines that say what was refused */

struct worker {
	struct engine *engine;
	unsigned index;
	pthread_t thread;
	bool started; /* the configuring thread's: to be joined */
	int abandon;  /* eventfd: whoever wants the running job's answer has left */
	/* Under the engine's lock: */
	bool exited;
	uint64_t ticket; /* of the running job; 0: none */
	bool abandoned;  /* abandon is readable */
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
	uint64_t jobs, retries;
	uint64_t outcomes[OUTCOME_COUNT];
	uint64_t reported[OUTCOME_COUNT]; /* of them, at the last report */
	uint64_t report_us;

	struct worker worker[ENGINE_THREADS_MAX];
};

/* ---- one job ------------------------------------------------------------------------- */

static void complete(struct job *j, enum outcome outcome)
{
	j->answer.outcome = outcome;
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
		e->outcomes[OUTCOME_QUEUE_FULL]++;
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

/* Takes the job off the queue if it is there; else tells the worker that runs it, if one does. */
static struct job *abandon_locked(struct engine *e, uint64_t ticket)
{
	struct job *j;
	TAILQ_FOREACH (j, &e->queue, link) {
		if (j->ticket != ticket)
			continue;
		TAILQ_REMOVE(&e->queue, j, link);
		e->waiting--;
		e->outcomes[OUTCOME_ABANDONED]++;
		return j;
	}
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++) {
		struct worker *w = &e->worker[i];
		uint64_t one = 1;
		if (w->ticket == ticket && !w->abandoned)
			w->abandoned = write(w->abandon, &one, sizeof one) == sizeof one;
	}
	return NULL;
}

void engine_abandon(struct engine *e, uint64_t ticket)
{
	pthread_mutex_lock(&e->lock);
	struct job *j = abandon_locked(e, ticket);
	pthread_mutex_unlock(&e->lock);
	if (j)
		complete(j, OUTCOME_ABANDONED);
}

/* What was refused for want of something since the last report: one line for all of it, since a
 * line each would be what an overloaded server needs least. */
static void report_refusals(struct engine *e, uint64_t now_us)
{
	static const enum outcome refusals[] = {OUTCOME_QUEUE_FULL, OUTCOME_QUEUE_TIMEOUT,
	                                        OUTCOME_POOL_TIMEOUT, OUTCOME_DB_DOWN};
	uint64_t n[OUTCOME_COUNT] = {0}, sum = 0;
	pthread_mutex_lock(&e->lock);
	bool due = now_us >= e->report_us;
	if (due)
		e->report_us = now_us + REPORT_INTERVAL_US;
	for (size_t i = 0; due && i < ELEMENTSOF(refusals); i++) {
		enum outcome o = refusals[i];
		sum += n[o] = e->outcomes[o] - e->reported[o];
		e->reported[o] = e->outcomes[o];
	}
	struct engine_options o = e->options;
	pthread_mutex_unlock(&e->lock);
	if (sum)
		log_warn("requests were answered 503", LOGU("queue_full", n[OUTCOME_QUEUE_FULL]),
		         LOGU("no_worker_in_time", n[OUTCOME_QUEUE_TIMEOUT]),
		         LOGU("no_connection_in_time", n[OUTCOME_POOL_TIMEOUT]),
		         LOGU("database_down", n[OUTCOME_DB_DOWN]), LOGU("workers", o.threads),
		         LOGU("queue", o.queue));
}

void engine_expire(struct engine *e, uint64_t now_us)
{
	/* All jobs wait equally long, so the first in the queue is the first to be overdue. */
	for (;;) {
		struct job *j = NULL;
		pthread_mutex_lock(&e->lock);
		if (!TAILQ_EMPTY(&e->queue) && is_overdue(e, TAILQ_FIRST(&e->queue), now_us)) {
			j = take_first_locked(e);
			e->outcomes[OUTCOME_QUEUE_TIMEOUT]++;
		}
		pthread_mutex_unlock(&e->lock);
		if (!j)
			break;
		j->answer.queue_us = (uint32_t)(now_us - j->submitted_us);
		complete(j, OUTCOME_QUEUE_TIMEOUT);
	}
	report_refusals(e, now_us);
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
		w->ticket = j->ticket;
	} else {
		w->exited = true;
		/* The signal that woke us may have been meant for a worker that stays. */
		pthread_cond_signal(&e->work);
	}
	*ret_options = e->options;
	pthread_mutex_unlock(&e->lock);
	return j;
}

/* From here on nobody can abandon what this worker runs. */
static void forget_job_locked(struct worker *w)
{
	uint64_t count;
	w->ticket = 0;
	if (w->abandoned && read(w->abandon, &count, sizeof count) < 0)
		ALWAYS(errno == EAGAIN || errno == EINTR);
	w->abandoned = false;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct engine *e = w->engine;
	struct engine_options o;
	struct job *j;
	pthread_setname_np(pthread_self(), "worker");
	while ((j = next_job(w, &o))) {
		unsigned retries;
		int64_t own = j->endpoint->timeout_ms;
		int64_t timeout_ms = own >= 0 ? own : o.statement_timeout_ms;
		enum outcome outcome =
		    run_job(e->pool, j, (uint64_t)timeout_ms * 1000, w->abandon, &retries);
		pthread_mutex_lock(&e->lock);
		e->retries += retries;
		e->outcomes[outcome]++;
		forget_job_locked(w);
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
		if (w->abandon < 0)
			w->abandon = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (w->abandon < 0)
			return -errno;
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
		e->worker[i] = (struct worker){.engine = e, .index = i, .abandon = -1};
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
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++)
		closep(&e->worker[i].abandon);
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
	    .refused = e->outcomes[OUTCOME_QUEUE_FULL],
	    .expired = e->outcomes[OUTCOME_QUEUE_TIMEOUT],
	    .retries = e->retries,
	};
	pthread_mutex_unlock(&e->lock);
}
