/*
 * The pool as its two files see it: pool.c has the states, the borrowers and the pool's life;
 * keeper.c has the thread that connects, drains, looks at idle connections and keeps the size.
 */
#ifndef PROVOST_DB_POOL_IMPL_H
#define PROVOST_DB_POOL_IMPL_H

#include <pthread.h>

#include "conn_impl.h"
#include "provost/pool.h"

TAILQ_HEAD(conns, conn);

/* A borrower in the queue, on its own stack. */
struct waiter {
	TAILQ_ENTRY(waiter) link;
	pthread_cond_t served;
	struct conn *conn;
	bool done; /* off the queue: served, or told that there is none */
};

struct pool {
	char *url;
	pthread_t thread;
	bool started;
	int wake;      /* eventfd: ends the keeper's sleep */
	int interrupt; /* eventfd: ends what borrowers wait for; never read */
	struct cancel *cancel;

	pthread_mutex_t lock;        /* guards everything below, and the pool's part of each conn */
	struct pool_options options; /* without url */
	size_t prepared_max;
	struct conns list[CONN_STATES]; /* IDLE: most recently used first */
	unsigned count[CONN_STATES];
	TAILQ_HEAD(, waiter) waiters;
	unsigned waiting;
	unsigned numbers;    /* given to connections so far */
	unsigned attempts;   /* failed in a row */
	uint64_t attempt_us; /* not before then */
	uint64_t complained_us;
	uint64_t answered_us; /* when a borrower was last done, with nothing outstanding */
	bool down;
	bool refusing; /* borrowers */
	bool stopping;
	uint64_t connects, failures, lost, cancels;
};

/* Ends the keeper's sleep. */
void pool_wake(struct pool *p);

/* The only place where a connection changes its state. CONN_CLOSED: off all lists; the caller frees
 * it, outside the lock. */
void conn_move_locked(struct pool *p, struct conn *c, enum conn_state to, uint64_t now_us);

unsigned pool_total_locked(const struct pool *p);
/* Connections that serve, or will once their cancelled statement has ended. */
unsigned pool_alive_locked(const struct pool *p);
/* Whether a connection that nobody uses must leave. */
bool pool_surplus_locked(const struct pool *p, const struct conn *c, uint64_t now_us);
/* Hands idle connections to borrowers in the order in which they came. */
void pool_serve_locked(struct pool *p, uint64_t now_us);
/* Tells all who wait that there is nothing to wait for. */
void pool_refuse_locked(struct pool *p);
/* Whether the server has said anything to a borrowed connection that asked nothing: its end is
 * near, whatever it says, and it is given up. */
bool pool_was_closed(struct conn *c);
void pool_close(struct pool *p, struct conn *c, bool was_lost);

/* ---- keeper.c ------------------------------------------------------------------------ */

/* The pool's thread. */
void *keeper_run(void *pool);
/* A cancel request for the connection of that number can no longer arrive. */
void keeper_cancelled(void *pool, unsigned number);

#endif
