/*
 * engine: turns a request for an endpoint into one statement, and its result into an answer.
 *
 * A job is embedded in whatever wants the answer. engine_submit puts it into a bounded queue; a worker
 * thread takes it, borrows a connection, runs the statement and makes the answer; `done` is called
 * exactly once for every accepted job, on a worker's or the janitor's thread, with no lock held. Whoever
 * unlinks a job from the queue, and nobody else, completes it.
 *
 * Bounds: `queue` jobs wait at most `queue_timeout_ms`; a connection is waited for at most the pool's
 * acquire timeout; a statement runs at most its endpoint's timeout, then it is cancelled.
 */
#ifndef PROVOST_ENGINE_H
#define PROVOST_ENGINE_H

#include <sys/queue.h>

#include "provost/endpoint.h"
#include "provost/errors.h"

struct engine;
struct pool;
struct conn;
struct catalog;

struct engine_options {
	unsigned threads;
	unsigned queue; /* jobs */
	int64_t queue_timeout_ms;
	int64_t statement_timeout_ms;
};

enum outcome {
	OUTCOME_OK,
	OUTCOME_NO_ROW,        /* `json` or `row` without a row */
	OUTCOME_SQL_ERROR,     /* sqlstate and message say which */
	OUTCOME_QUEUE_FULL,    /* refused */
	OUTCOME_QUEUE_TIMEOUT, /* no worker in time */
	OUTCOME_POOL_TIMEOUT,  /* no connection in time */
	OUTCOME_DB_DOWN,       /* the database cannot be reached */
	OUTCOME_DB_LOST,       /* the connection died, twice for a read */
	OUTCOME_DEADLINE,      /* the statement's deadline passed */
	OUTCOME_NO_MEMORY,
	OUTCOME_STOPPING,
};

/* What a job came to. Immutable; owned by the job until answer_done. */
struct answer {
	enum outcome outcome;
	const char *body; /* UTF-8 JSON, not NUL-terminated; NULL for none */
	size_t body_len;
	char etag[36];     /* opaque-tag without its quotes (RFC 9110, section 8.8.3); "" for none */
	char sqlstate[6];  /* OUTCOME_SQL_ERROR */
	char *message;     /* the database's words; for the log, development mode and provost.fail */
	uint32_t queue_us; /* from submit until the statement was sent */
	uint32_t db_us;    /* from sent until the last byte of the result */
	void *memory;      /* what body points into; */
	void (*memory_free)(void *);
};
void answer_done(struct answer *a);

struct job {
	/* Set by the submitter, untouched until done. */
	const struct endpoint *endpoint;
	const char *const *values; /* one per bind of the statement, PostgreSQL text or NULL */
	const char *request_id;    /* for the log */
	void (*done)(struct job *);
	/* Set before done. */
	struct answer answer;
	/* The engine's own. */
	uint64_t submitted_us;
	TAILQ_ENTRY(job) link; /* engine->lock */
};

struct engine *engine_new(const struct engine_options *o, struct pool *pool);
int engine_start(struct engine *e) _must_check_;
/* Starts or retires workers and changes limits while running. One caller at a time. Negative errno when
 * a thread cannot be started; limits are applied all the same. */
int engine_configure(struct engine *e, const struct engine_options *o) _must_check_;

/* Any thread, never blocks. 0: accepted, `done` will be called; -EAGAIN: the queue is full;
 * -ESHUTDOWN: stopping; done is not called for those. */
int engine_submit(struct engine *e, struct job *j) _must_check_;

/* Completes the jobs whose queue deadline has passed. Janitor, every 10 ms; returns the number of jobs
 * still waiting. */
size_t engine_expire(struct engine *e, uint64_t now_us);

/* Refuses new jobs, completes the waiting ones with OUTCOME_STOPPING, waits for running ones. */
void engine_stop(struct engine *e);
void engine_free(struct engine **e);

struct engine_stats {
	unsigned threads, busy, waiting;
	uint64_t jobs, refused, expired, retries;
};
void engine_stats(struct engine *e, struct engine_stats *ret);

/* Prepares and describes every endpoint of the catalogue on a connection of its own: resolves @returns
 * where it is not declared. Errors name file and line. 0; -EINVAL with errors; -ENOTCONN with one
 * error, when the database cannot be reached or was lost meanwhile. Blocks, until `deadline_us`. */
int engine_describe(struct catalog *c, const char *url, uint64_t deadline_us, struct errors *errs)
	_must_check_;

#endif
