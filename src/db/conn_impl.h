/*
 * What conn.c and pool.c share and nobody else sees.
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
	unsigned syncs; /* sent and not yet answered */
	PostgresPollingStatusType polling;
	uint64_t connect_timeout_us;

	uint64_t preparing; /* id of the statement whose Parse is under way, or 0 */
	uint64_t *prepared; /* ids of the statements this session holds */
	size_t prepareds, prepared_cap;

	/* The pool's own, under its lock. */
	enum conn_state state;
	TAILQ_ENTRY(conn) link;
	uint64_t since_us;   /* of the state */
	uint64_t expires_us; /* end of its lifetime; 0: none */
	bool cancelling;     /* a cancel request of ours may still arrive */
};

#endif
