/*
 * What the files of the connection and of the pool share and nobody else sees.
 *
 * conn.c      connecting, one statement at a time, results, conditions
 * pipeline.c  what is prepared, sending and receiving
 * notify.c    sending without waiting, and what comes unasked
 */
#ifndef PROVOST_DB_CONN_IMPL_H
#define PROVOST_DB_CONN_IMPL_H

#include <libpq-fe.h>
#include <sys/queue.h>

#include "provost/conn.h"

enum conn_state {
	CONN_CONNECTING, /* owner: the pool's thread */
	CONN_IDLE,       /* owner: nobody; under the pool's lock */
	CONN_BUSY,       /* owner: the borrower */
	CONN_DRAINING,   /* owner: the pool's thread */
	CONN_CLOSED,     /* owner: whoever closed it, to free it */
	CONN_STATES,
};

enum expectation {
	EXPECT_RESULT,
	EXPECT_PREPARED,    /* a Parse of the statement */
	EXPECT_DEALLOCATED, /* its end, because it has changed */
	EXPECT_SYNC,
};

/* What one command that was sent is to bring. */
struct expected {
	enum expectation kind;
	struct conn_step *step; /* whose it is; NULL: nobody's any more */
	uint64_t id;            /* of the statement it concerns, or 0 */
};

/* A statement that the session holds. */
struct prepared {
	uint64_t id;
	bool stale; /* its columns have changed: to be deallocated before it is prepared again */
};

struct conn {
	unsigned magic;
#define CONN_MAGIC 0xC0117EC7u
	unsigned number;
	PGconn *pg;
	bool prepare;
	bool broken;
	bool bloated;   /* libpq's buffer stays as large as the largest value was */
	int interrupt;  /* not ours; or -1 */
	int abandon;    /* likewise; the borrower's */
	bool insisting; /* neither is looked at */
	PostgresPollingStatusType polling;
	uint64_t connect_timeout_us;

	struct prepared *prepared;
	size_t prepareds, prepared_cap;

	/* What is outstanding, in the order of sending: from `next` on. Kept when it is given up,
	 * so that the drain still knows what the results are of. */
	struct expected *expected;
	size_t next, expecteds, expected_cap;
	bool refused;  /* an error has come to what nobody waits for */
	bool answered; /* expected[next] has had a result, and its end is to come */

	/* The pool's own, under its lock. */
	enum conn_state state;
	TAILQ_ENTRY(conn) link;
	uint64_t since_us;   /* of the state */
	uint64_t expires_us; /* end of its lifetime; 0: none */
	unsigned cancels;    /* requests of ours that may still arrive */
	unsigned cancelled;  /* how many have, since anything came of one; while it drains */
	uint64_t cancel_us;  /* another not before then; likewise */
};

/* ---- conn.c -------------------------------------------------------------------------- */

/* Waits for `events` on the socket. 0, -ETIMEDOUT or -ECANCELED; errors of the socket show up in
 * libpq. */
int conn_wait(struct conn *c, short events, uint64_t deadline_us) _must_check_;

/* Its columns are others than when it was prepared. The same SQLSTATE may come from the statement
 * itself. */
bool conn_has_changed(const struct pg_result *r);
/* The session holds it no more. Here, too, the statement itself may say the same of another. */
bool conn_has_gone(const struct pg_result *r, const char *name);

/* ---- pipeline.c ---------------------------------------------------------------------- */

/* Whether the session is believed to hold the statement. */
bool pipeline_holds(const struct conn *c, uint64_t id);
/* Room for so many results more. */
int pipeline_room(struct conn *c, size_t results) _must_check_;
/* Notes that a command is in libpq's queue, if it is: else the connection is lost. */
int pipeline_sent(struct conn *c, int ok, struct conn_step *step, enum expectation kind,
                  uint64_t id) _must_check_;

/* Takes the results that are complete, up to a Sync. 1: it is reached; 0: more must come, or
 * nothing is outstanding; -ECONNRESET, and what a sink says. */
int pipeline_take(struct conn *c) _must_check_;

#endif
