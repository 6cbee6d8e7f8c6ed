/*
 * pool: the libpq connections, their states, and who may use them when.
 *
 * A connection is in one state at a time, and one function (conn_move_locked in src/db/pool.c)
 * makes every transition, under the pool's lock:
 *
 *     CONNECTING -> IDLE <-> BUSY -> DRAINING -> IDLE
 *     and from every state to CLOSED, which frees it
 *
 * Workers borrow with pool_acquire and give back with pool_release; while BUSY a connection belongs
 * to the borrower alone. The pool's own thread connects (which resolves names, and may block),
 * drains, checks idle connections, ends lifetimes and keeps the size between min and max. A second
 * thread of its own sends cancel requests, because PQcancel blocks.
 *
 * Bounded by: `max` connections; borrowers wait `acquire_timeout_ms` at most, first come first
 * served, and not at all while the database is known to be down.
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

/* Copies the options. The URL has been validated by config. Exits when out of memory. */
struct pool *pool_new(const struct pool_options *o);
/* Starts the two threads; connecting begins. Negative errno. */
int pool_start(struct pool *p) _must_check_;
/* Applies everything but the URL; surplus connections leave as they become idle. Any thread. */
void pool_configure(struct pool *p, const struct pool_options *o);
/* How many statements a session may hold prepared: past that its connection is replaced once it is
 * given back, so that what reloads leave behind does not pile up in the server. CONN_PREPARED_MAX
 * at first, and at most. Any thread. */
void pool_limit_prepared(struct pool *p, size_t statements);
/* For a stop that waits no longer: refuses borrowers, also those that wait; what they run returns
 * -ECANCELED, and is cancelled when the connection is given back. Any thread. */
void pool_interrupt(struct pool *p);
/* Refuses borrowers, ends the threads, closes what is not borrowed. Every borrower must have given
 * back before pool_free. */
void pool_stop(struct pool *p);
void pool_free(struct pool **p);

/* Borrows a connection, waiting as long as the acquire timeout. `verify` looks at the socket first
 * and passes over connections that died while idle: for a read's retry. 0; -ETIMEDOUT;
 * -ENOTCONN, the database is known to be down; -ESHUTDOWN. Blocks: workers only. */
int pool_acquire(struct pool *p, bool verify, struct conn **ret) _must_check_;

/* Gives a connection back in whatever condition it is: idle again, cancelled and drained, or
 * closed. */
void pool_release(struct pool *p, struct conn **c);

/* Asks the server to cancel what a borrowed connection runs, without giving it back: the borrower
 * goes on receiving, and learns how it ended. What is run on it afterwards by the same borrower may
 * be hit as well; nobody else's is. 0 or -ENOMEM. */
int pool_cancel(struct pool *p, struct conn *c) _must_check_;

/* False from the moment the last connection is gone and a new one failed, until one succeeds. */
bool pool_is_up(struct pool *p);
/* When (clock_us) a connection was last given back after an answer; 0: never. */
uint64_t pool_answered_us(struct pool *p);
/* The database was seen elsewhere: what waits to try again tries at once. Any thread. */
void pool_hurry(struct pool *p);

struct pool_stats {
	unsigned min, max, idle, busy, connecting, draining;
	unsigned waiting;  /* borrowers */
	uint64_t connects; /* established since the start */
	uint64_t failures; /* attempts that failed */
	uint64_t lost;     /* connections that died in use or idle */
	uint64_t cancels;  /* cancel requests sent */
};
void pool_stats(struct pool *p, struct pool_stats *ret);

#endif
