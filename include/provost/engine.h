/*
 * engine: turns a request for an endpoint into one statement, and its result into an answer.
 *
 * A job is embedded in whatever wants the answer. engine_submit puts it into a bounded queue; a
 * worker thread takes it, borrows a connection, runs the statement and makes the answer; `done` is
 * called exactly once for every accepted job, on a worker's or the janitor's thread, with no lock
 * held. Whoever takes a job off the queue, and nobody else, completes it.
 *
 * Bounds: `queue` jobs wait at most `queue_timeout_ms`; a connection is waited for at most the
 * pool's acquire timeout; a statement runs at most its endpoint's timeout, then it is cancelled.
 */
#ifndef PROVOST_ENGINE_H
#define PROVOST_ENGINE_H

#include <sys/queue.h>

#include "provost/answer.h"
#include "provost/endpoint.h"
#include "provost/errors.h"

struct engine;
struct pool;
struct catalog;

enum { ENGINE_THREADS_MAX = 256 };

struct engine_options {
	unsigned threads; /* 1 .. ENGINE_THREADS_MAX */
	unsigned queue;   /* jobs */
	int64_t queue_timeout_ms;
	int64_t statement_timeout_ms; /* for endpoints without their own */
};

struct job {
	/* Set by the submitter, untouched until done. */
	const struct endpoint *endpoint;
	const char *const *values; /* one per bind of the statement: PostgreSQL text or NULL */
	const char *request_id;    /* for the log */
	void (*done)(struct job *);
	uint64_t ticket; /* no other job has it; for engine_abandon */
	/* Set before done; the submitter's to end with answer_done. */
	struct answer answer;
	/* The engine's own. */
	uint64_t submitted_us;
	TAILQ_ENTRY(job) link; /* under the engine's lock */
};

/* Copies the options. Exits when out of memory. */
struct engine *engine_new(const struct engine_options *o, struct pool *pool);
int engine_start(struct engine *e) _must_check_;
/* Starts or retires workers and changes limits while running. One caller at a time. Negative errno
 * when a thread cannot be started; everything else is applied all the same. */
int engine_configure(struct engine *e, const struct engine_options *o) _must_check_;

/* Any thread, never blocks. 0: accepted, `done` will be called, perhaps before this returns;
 * -EAGAIN: the queue is full; -ESHUTDOWN: stopping; `done` is not called for those. */
int engine_submit(struct engine *e, struct job *j) _must_check_;

/* Whoever wanted the answer of the job with that ticket has left: if it waits it is completed at
 * once, if it runs its statement is cancelled; `done` is called as ever. A job that has been
 * completed meanwhile is not missed. Any thread. */
void engine_abandon(struct engine *e, uint64_t ticket);

/* Completes the jobs whose time in the queue is over, and logs now and then what was refused.
 * Janitor, every 10 ms. */
void engine_expire(struct engine *e, uint64_t now_us);

/* Refuses new jobs, completes the waiting ones with OUTCOME_STOPPING, and waits for the running
 * ones, which at `until_us` are interrupted and end with OUTCOME_STOPPING as well. */
void engine_stop(struct engine *e, uint64_t until_us);
void engine_free(struct engine **e);

struct engine_stats {
	unsigned threads, busy, waiting;
	uint64_t jobs, refused, expired, retries;
};
void engine_stats(struct engine *e, struct engine_stats *ret);

/* Prepares and describes every endpoint of the catalogue on a connection of its own: the statement
 * is one that PostgreSQL accepts, this role may run it, @returns fits (and is resolved where it is
 * not declared). All errors, with file and line, not just the first. 0; -EINVAL with errors;
 * -ENOTCONN with one error, when the database cannot be reached or went away meanwhile; -ECANCELED
 * once the descriptor `interrupt` (-1: none) is readable. Blocks until `deadline_us` at most. */
int engine_describe(struct catalog *c, const char *url, bool prepare, int interrupt,
                    uint64_t deadline_us, struct errors *errs) _must_check_;

#endif
