#include "engine_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "encode.h"
#include "provost/listener.h"
#include "provost/log.h"
#include "provost/pool.h"
#include "provost/status.h"
#include "run.h"

enum { REPORT_INTERVAL_US = 2000000 }; /* between lines that say what was refused */

/* ---- jobs that never run ------------------------------------------------------------- */

static void end_unrun(struct engine *e, struct job **j, struct waiters *w, enum outcome outcome,
                      uint64_t now_us)
{
	if ((*j)->kind == JOB_ENCODE)
		cache_unclaim_variant(e->cache, (*j)->entry, (*j)->coding);
	(*j)->answer.outcome = outcome;
	(*j)->answer.queue_us = (uint32_t)(now_us - (*j)->submitted_us);
	lanes_answer(j, w);
}

static bool is_overdue(const struct engine *e, const struct job *j, uint64_t now_us)
{
	return now_us >= j->submitted_us + (uint64_t)e->options.queue_timeout_ms * 1000;
}

/* All jobs of a lane wait equally long, so the first in it is the first to be overdue. */
static void expire_lane(struct engine *e, enum job_lane lane, uint64_t now_us)
{
	for (;;) {
		struct waiters w;
		pthread_mutex_lock(&e->lock);
		struct job *j = TAILQ_FIRST(&e->lane[lane].jobs);
		if (j && is_overdue(e, j, now_us)) {
			j = lanes_drop_locked(e, lane, &w); /* of a batch, a member */
			e->outcomes[OUTCOME_QUEUE_TIMEOUT] += lanes_count(&w);
		} else {
			j = NULL;
		}
		pthread_mutex_unlock(&e->lock);
		if (!j)
			return;
		end_unrun(e, &j, &w, OUTCOME_QUEUE_TIMEOUT, now_us);
	}
}

/* The requests that wanted for something since the last report: one line for all of them, since a
 * line each would be what an overloaded server needs least. Some may have got what was stored. */
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
		log_warn("requests found no room, worker, connection or database",
		         LOGU("queue_full", n[OUTCOME_QUEUE_FULL]),
		         LOGU("no_worker_in_time", n[OUTCOME_QUEUE_TIMEOUT]),
		         LOGU("no_connection_in_time", n[OUTCOME_POOL_TIMEOUT]),
		         LOGU("database_down", n[OUTCOME_DB_DOWN]), LOGU("workers", o.threads),
		         LOGU("queue", o.queue));
}

void engine_expire(struct engine *e, uint64_t now_us)
{
	for (unsigned i = 0; i < LANE_COUNT; i++)
		expire_lane(e, (enum job_lane)i, now_us);
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
	while (!is_retired_locked(e, w) && !(j = lanes_take_locked(e)))
		pthread_cond_wait(&e->work, &e->lock);
	w->job = j;
	if (!j) {
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
	w->job = NULL;
	if (w->abandoned && read(w->abandon, &count, sizeof count) < 0)
		ALWAYS(errno == EAGAIN || errno == EINTR);
	w->abandoned = false;
}

static void run_encode(struct engine *e, struct job *j)
{
	size_t len, n = 0;
	void *encoded = NULL;
	const void *body = entry_body(j->entry, &len);
	if (encode_body(j->coding, body, len, &encoded, &n) == -ENOMEM)
		cache_unclaim_variant(e->cache, j->entry, j->coding);
	else /* NULL when it would not be smaller */
		cache_attach(e->cache, j->entry, j->coding, encoded, n);
}

static void run(struct worker *w, struct job *j, const struct engine_options *o,
                struct run_counts *ret)
{
	struct engine *e = w->engine;
	uint64_t timeout_us = (uint64_t)o->statement_timeout_ms * 1000;
	*ret = (struct run_counts){0};
	switch (j->kind) {
	case JOB_FILL:
		fill_run(e, j, job_timeout_us(j, timeout_us), w->abandon, ret);
		break;
	case JOB_WRITE:
		write_run(e, j, job_timeout_us(j, timeout_us), ret);
		break;
	case JOB_BATCH:
		batch_run(e, j, timeout_us, w->abandon, ret);
		break;
	case JOB_ENCODE:
		run_encode(e, j);
		break;
	case JOB_CALL:
		run_call(e, j, timeout_us);
		break;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct engine *e = w->engine;
	struct engine_options o;
	struct job *j;
	pthread_setname_np(pthread_self(), "worker");
	while ((j = next_job(w, &o))) {
		struct run_counts n;
		struct waiters waiters;
		run(w, j, &o, &n);
		pthread_mutex_lock(&e->lock);
		e->retries += n.retries;
		e->statements += n.statements;
		forget_job_locked(w);
		bool more = lanes_end_locked(e, j, &waiters);
		if (e->busy == 0 && e->stopping)
			pthread_cond_signal(&e->idle);
		pthread_mutex_unlock(&e->lock);
		/* This worker answers first; what its job kept from running need not wait for that.
		 */
		if (more)
			pthread_cond_signal(&e->work);
		lanes_answer(&j, &waiters);
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

struct engine *engine_new(const struct engine_options *o, struct pool *pool, struct cache *cache,
                          struct generations *generations, struct listener *listener)
{
	struct engine *e = xcalloc(1, sizeof *e);
	ALWAYS(o->threads > 0 && o->threads <= ENGINE_THREADS_MAX);
	e->pool = pool;
	e->cache = cache;
	e->generations = generations;
	e->listener = listener;
	e->options = *o;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->work, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->idle, &attr);
	pthread_condattr_destroy(&attr);
	lanes_init(e);
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

/* Parked jobs first: the others' ends would make them run. */
static void end_waiting(struct engine *e)
{
	static const enum job_lane order[] = {LANE_PARKED, LANE_PARKED_BACKGROUND, LANE_REQUESTS,
	                                      LANE_BACKGROUND};
	for (size_t i = 0; i < ELEMENTSOF(order);) {
		struct waiters w;
		pthread_mutex_lock(&e->lock);
		struct job *j = lanes_drop_locked(e, order[i], &w);
		pthread_mutex_unlock(&e->lock);
		if (j)
			end_unrun(e, &j, &w, OUTCOME_STOPPING, clock_us());
		else
			i++;
	}
}

void engine_stop(struct engine *e, uint64_t until_us)
{
	pthread_mutex_lock(&e->lock);
	e->stopping = true;
	pthread_cond_broadcast(&e->work);
	pthread_mutex_unlock(&e->lock);
	end_waiting(e);
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
	for (unsigned i = 0; i < LANE_COUNT; i++)
		ALWAYS(TAILQ_EMPTY(&e->lane[i].jobs));
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++)
		closep(&e->worker[i].abandon);
	pthread_cond_destroy(&e->work);
	pthread_cond_destroy(&e->idle);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

/* A listener that hears nothing may be alone with it. It tells of a database that hangs long before
 * a statement's time is over; an answer that came since says that it does not. */
bool engine_database_is_up(struct engine *e)
{
	uint64_t down_us = e->listener ? listener_down_us(e->listener) : 0;
	return pool_is_up(e->pool) && (!down_us || pool_answered_us(e->pool) > down_us);
}

/* Waiting in vain is the database's fault when that seems to hang. */
bool engine_database_failed(struct engine *e, const struct answer *a)
{
	return answer_is_database_failure(a) || (answer_is_timeout(a) && !engine_database_is_up(e));
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
	pthread_mutex_lock(&e->lock);
	*ret = (struct engine_stats){
	    .threads = e->options.threads,
	    .queue = e->options.queue,
	    .busy = e->busy,
	    .waiting = e->lane[LANE_REQUESTS].count + e->lane[LANE_PARKED].count,
	    .jobs = e->jobs,
	    .writes = e->writes,
	    .collapsed = e->collapsed,
	    .statements = e->statements,
	    .refreshes = e->refreshes,
	    .encodings = e->encodings,
	    .refused = e->outcomes[OUTCOME_QUEUE_FULL],
	    .expired = e->outcomes[OUTCOME_QUEUE_TIMEOUT],
	    .retries = e->retries,
	};
	pthread_mutex_unlock(&e->lock);
}
