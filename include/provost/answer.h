/*
 * answer: what a request for data came to, before anybody puts it into HTTP.
 *
 * Immutable once made; owned by one thread at a time. The body is served from where the database
 * driver left it, without a copy.
 */
#ifndef PROVOST_ANSWER_H
#define PROVOST_ANSWER_H

#include "provost/base.h"

enum { ANSWER_BODY_MAX = 256 << 20 }; /* bytes */

enum outcome {
	OUTCOME_OK,
	OUTCOME_NO_ROW,        /* `json` or `row` without a row */
	OUTCOME_SQL_ERROR,     /* sqlstate and message say which */
	OUTCOME_QUEUE_FULL,    /* refused at once */
	OUTCOME_QUEUE_TIMEOUT, /* no worker in time */
	OUTCOME_POOL_TIMEOUT,  /* no connection in time */
	OUTCOME_DB_DOWN,       /* the database cannot be reached */
	OUTCOME_DB_LOST,       /* the connection died, and so did that of the retry */
	OUTCOME_DEADLINE,      /* the statement ran into its timeout */
	OUTCOME_TOO_LARGE,     /* the body would be larger than ANSWER_BODY_MAX */
	OUTCOME_NO_MEMORY,
	OUTCOME_UNKNOWN,     /* a write whose connection died: it may have been committed */
	OUTCOME_ANSWER_LOST, /* a write that was committed, whose answer has not come */
	OUTCOME_ABANDONED,   /* whoever asked has left */
	OUTCOME_STOPPING,
	OUTCOME_COUNT,
};

struct answer {
	enum outcome outcome;
	const char *body; /* UTF-8 JSON, not NUL-terminated; NULL for none */
	size_t body_len;
	unsigned char etag[16]; /* hash of the body, if there is one */
	char sqlstate[6];       /* OUTCOME_SQL_ERROR */
	char *message;     /* the database's words, for the log and development mode; or NULL */
	uint32_t queue_us; /* from submission until a connection was there */
	uint32_t db_us;    /* from then until the result was complete */
	uint32_t sync_us;  /* a write's: from then until its changes had been heard of */
	void *memory;      /* what body points into */
	void (*memory_free)(void *);
};

/* Frees what it holds and zeroes it. */
void answer_done(struct answer *a);

#endif
