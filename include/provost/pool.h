/*
 * pool: the libpq connections, their states, and who may use them when.
 *
 * A connection is in one state at a time and every transition is made by one function
 * (conn_move in src/db/pool.c), under the pool's lock:
 *
 *     CLOSED -> CONNECTING -> IDLE <-> BUSY -> DRAINING -> IDLE
 *     and from every state to CLOSED
 *
 * Workers borrow IDLE connections with pool_acquire and give them back with pool_release; while BUSY a
 * connection belongs to the borrower alone. Connecting, draining (after a cancel), health checks,
 * lifetimes and the pool's size are the business of the one thread that calls pool_run. Cancel
 * requests are sent by a thread of their own, because PQcancel blocks.
 *
 * Bounded by: `max` connections; borrowers wait at most `acquire_timeout_ms`, first come first served,
 * and not at all while the database is known to be down.
 */
#ifndef PROVOST_POOL_H
#define PROVOST_POOL_H

#include "provost/errors.h"

struct pool;
struct conn;

struct pool_options {
	char *url; /* libpq URI or keyword string, ORM extras removed; needs a restart */
	unsigned min, max;
	int64_t acquire_timeout_ms;
	int64_t max_lifetime_ms; /* 0: no limit; each connection's own is up to a tenth shorter */
	bool prepare;            /* no: unnamed statements, for a transaction pooler */
};

/* Copies the options. NULL with an error when the URL cannot be parsed. */
struct pool *pool_new(const struct pool_options *o, struct errors *errs);

/* Applies everything but the URL; surplus connections leave as they become idle. Any thread. */
void pool_configure(struct pool *p, const struct pool_options *o);

/* Starts the canceller and lets connecting begin. Negative errno. */
int pool_start(struct pool *p) _must_check_;

/* One turn of the pool's own work: connects, drains, checks, resizes; sleeps in poll for at most
 * `timeout_ms` or until there is something to do. One thread only, always the same. */
void pool_run(struct pool *p, int timeout_ms);

/* Ends pool_run's sleep. Any thread; async-signal-safe. */
void pool_wake(struct pool *p);

/* Refuses new borrowers, closes what is idle. Borrowed connections must have been given back. */
void pool_stop(struct pool *p);
void pool_free(struct pool **p);

/* Borrows a connection, waiting until `deadline_us` (clock_us) at most or the acquire timeout, whichever
 * is first. `verify` looks at the socket first and passes over connections that died while idle: for
 * the second try of a read. 0; -ETIMEDOUT; -ENOTCONN, the database is known to be down;
 * -ESHUTDOWN. Blocks: workers only. */
int pool_acquire(struct pool *p, uint64_t deadline_us, bool verify, struct conn **ret) _must_check_;

/* Gives a connection back in whatever condition it is: idle again, cancelled and drained, or closed. */
void pool_release(struct pool *p, struct conn **c);

/* The database answered last time we asked, or has not been asked yet with connections alive. */
bool pool_is_up(struct pool *p);

struct pool_stats {
	unsigned min, max, idle, busy, connecting, draining;
	unsigned waiting;    /* borrowers */
	uint64_t connects;   /* established since the start */
	uint64_t failures;   /* attempts that failed */
	uint64_t lost;       /* connections that died in use or idle */
	uint64_t cancels;    /* cancel requests sent */
};
void pool_stats(struct pool *p, struct pool_stats *ret);

#endif
