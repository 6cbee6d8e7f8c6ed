/*
 * engine: turns a request for an endpoint into one statement, however many want its answer.
 *
 * engine_submit joins a fill of the same key, or begins one: a job in a bounded queue, from which a
 * worker thread takes it, borrows a connection, runs the statement, stores the answer in the cache
 * and resumes all who wait. Whoever takes a waiter off its job under the engine's lock, and nobody
 * else, answers it. Background work (refreshes, encoding) has a lane and a quota of its own,
 * so that it cannot keep requests waiting.
 *
 * Bounds: `queue` jobs, and as many in the background lane at most as ENGINE_BACKGROUND_MAX, wait
 * at most `queue_timeout_ms`, parked ones included; a connection is waited for at most the pool's
 * acquire timeout; a statement runs at most its endpoint's timeout, then it is cancelled. A fill is
 * given up, and its statement cancelled, when the last of its waiters has left. A failure is shared
 * by those who wait; the next request begins anew.
 */
#ifndef PROVOST_ENGINE_H
#define PROVOST_ENGINE_H

#include "provost/errors.h"
#include "provost/job.h"
#include "provost/values.h"

struct engine;
struct listener;
struct pool;

enum {
	ENGINE_THREADS_MAX = 256,
	BATCH_MAX = 50,              /* reads in one batch */
	ENGINE_BACKGROUND_MAX = 256, /* jobs that wait in the background; more are refused */
};

struct engine_options {
	unsigned threads; /* 1 .. ENGINE_THREADS_MAX */
	unsigned queue;   /* jobs */
	int64_t queue_timeout_ms;
	int64_t statement_timeout_ms; /* for endpoints without their own */
};

/* What a request wants. Copied or referenced by the job that it begins, if it begins one. */
struct ask {
	struct catalog *catalog;
	const struct endpoint *endpoint;
	struct cache_key key; /* of key_build */
	const char *request_id;
};

struct conn;

/* Something that needs a connection and waits for the database, embedded in what it works on. `run`
 * is called on a worker, with a connection for the time of the call. */
struct call {
	void (*run)(struct call *c, struct conn *conn, uint64_t deadline_us);
};

/* Copies the options, borrows the rest. `listener` may be NULL: then every write raises the epoch.
 * Exits when out of memory. */
struct engine *engine_new(const struct engine_options *o, struct pool *pool, struct cache *cache,
                          struct generations *generations, struct listener *listener);
int engine_start(struct engine *e) _must_check_;
/* Starts or retires workers and changes limits while running. One caller at a time. Negative errno
 * when a thread cannot be started; everything else is applied all the same. */
int engine_configure(struct engine *e, const struct engine_options *o) _must_check_;

/* Any thread, never blocks. 0: accepted, `done` will be called, perhaps before this returns;
 * -EAGAIN: the queue is full; -ESHUTDOWN: stopping;
 * -ENOMEM; `done` is not called for those. */
int engine_submit(struct engine *e, const struct ask *a, struct waiter *w) _must_check_;

/* Has the call run, within statement_timeout. As engine_submit; its waiter cannot leave before it
 * has ended. The job's outcome is OUTCOME_OK when `run` was called, else why it was not. */
int engine_call(struct engine *e, struct call *c, struct waiter *w) _must_check_;

/* Runs an endpoint that writes: the statement in a transaction of its own, acknowledged when all
 * that it changed has been made old here. `a->key` holds the values, the body among them; nothing
 * is looked up by it, and no two writes are one. As engine_submit; its waiter cannot leave: what
 * was accepted runs, unless it has waited for longer than queue_timeout_ms.
 *
 * OUTCOME_OK, NO_ROW and ANSWER_LOST: it was committed. OUTCOME_UNKNOWN: perhaps. Every other: it
 * was not, and has left nothing. Tried again only where the latter is certain: conflicts, and a
 * connection on which nothing was sent. At its timeout it is cancelled, and waited for until it
 * says how it ended, for a second at most. */
int engine_write(struct engine *e, const struct ask *a, struct waiter *w) _must_check_;

/* Submits many reads at once, BATCH_MAX at most: each joins the fill of its key, or is parked
 * behind it, as with engine_submit; the fills that are begun here are one job, and their statements
 * one round trip, each between Syncs of its own. They can be joined and left one by one, and each
 * is answered as soon as its own result is there. `ret[i]` is what engine_submit would have
 * returned for `a[i]`, whose waiter is `w[i]`.
 *
 * Each statement has its own timeout, from when the one before it has ended; all together take the
 * largest of them at most. What then, or for a lost connection, a conflict or somebody else's
 * timeout, has not had its turn, is run by itself, all of that within the largest once more. */
void engine_submit_batch(struct engine *e, const struct ask *a, struct waiter *const *w, int *ret,
                         size_t n);

/* As engine_submit, but in the background: within its quota and its lane, in which it also waits
 * for a fill of the same key that was begun before a change. A request that comes for the key
 * meanwhile joins it, and then neither waits for the quota. It goes on without waiters. -EAGAIN:
 * the lane is full. */
int engine_submit_background(struct engine *e, const struct ask *a, struct waiter *w) _must_check_;

/* Renews what the cache has for the key, in the background, unless that is being done or the lane
 * is full. Any thread, never blocks. */
void engine_refresh(struct engine *e, const struct ask *a);

/* Has a variant of the entry made in the background, if it is large enough to be worth it, nobody
 * is at it, and the lane is not full. Any thread, never blocks. */
void engine_encode(struct engine *e, struct entry *entry, enum entry_coding coding);

/* Whoever waits for a fill with that ticket has left: it is answered at once, with `left` set. When
 * nobody else waits, its job is taken off the queue, or its statement cancelled. One that has been
 * answered meanwhile is not missed. Any thread. */
void engine_abandon(struct engine *e, uint64_t ticket);

/* Ends the jobs whose time in the queue is over, and logs now and then what was refused. Janitor,
 * every 10 ms. */
void engine_expire(struct engine *e, uint64_t now_us);

/* Refuses new jobs, ends the waiting ones with OUTCOME_STOPPING, and waits for the running ones,
 * which at `until_us` are interrupted and end with OUTCOME_STOPPING as well; of a write it is then
 * waited for a second, or for the listener, to know how it ended. */
void engine_stop(struct engine *e, uint64_t until_us);
void engine_free(struct engine **e);

/* Whether it makes sense to ask the database, as far as is known. Any thread. */
bool engine_database_is_up(struct engine *e);
/* Whether it is for the database's sake that there is no other answer than this one, so that an old
 * one may stand in for it (stale_if_error). Any thread. */
bool engine_database_failed(struct engine *e, const struct answer *a);

struct engine_stats {
	unsigned threads, queue; /* in force */
	unsigned busy, waiting;
	uint64_t jobs;       /* fills begun */
	uint64_t writes;     /* accepted */
	uint64_t collapsed;  /* requests that joined one */
	uint64_t statements; /* sent for endpoints, tries included */
	uint64_t refreshes;  /* fills begun in the background */
	uint64_t encodings;
	uint64_t refused, expired, retries;
};
void engine_stats(struct engine *e, struct engine_stats *ret);

/* Prepares and describes every endpoint of the catalogue on a connection of its own: the statement
 * is one that PostgreSQL accepts, this role may run it, @returns fits (and is resolved where it is
 * not declared), and of a GET, what it depends on. Seals the endpoints' keys. All errors, with file
 * and line, not just the first. 0; -EINVAL with errors; -ENOTCONN with one error, when the database
 * cannot be reached or went away meanwhile; -ECANCELED once the descriptor `interrupt` (-1: none)
 * is readable. Blocks until `deadline_us` at most. */
int engine_describe(struct catalog *c, const char *url, bool prepare, int interrupt,
                    uint64_t deadline_us, struct errors *errs) _must_check_;

#endif
