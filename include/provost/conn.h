/*
 * conn: one libpq connection, used asynchronously and with deadlines.
 *
 * The connection is in pipeline mode for all its life, so that preparing and running, and later
 * several statements, are one round trip. A struct conn has one owner at a time (see pool.h for
 * whose turn it is); nothing here locks. Functions that wait do so in poll(2), until their deadline.
 */
#ifndef PROVOST_CONN_H
#define PROVOST_CONN_H

#include "provost/errors.h"
#include "provost/stmt.h"

struct conn;
struct pg_result;

enum { CONN_PREPARED_MAX = 4096 }; /* statements; a connection that holds more is retired */

/* ---- connecting: the pool's thread, or a loader ----------------------------------------------- */

/* Begins to connect. `number` names the connection in logs. NULL when out of memory. */
struct conn *conn_begin(const char *url, bool prepare, unsigned number);
/* Advances. 1: established; 0: call again when conn_fd is ready for conn_events (poll's);
 * -ECONNREFUSED: failed, see conn_error. */
int conn_advance(struct conn *c) _must_check_;
int conn_fd(const struct conn *c);
short conn_events(const struct conn *c);
/* Begins and waits. NULL with an error. */
struct conn *conn_open(const char *url, uint64_t deadline_us, struct errors *errs);
void conn_free(struct conn **c);
#define _cleanup_conn_ _cleanup_(conn_free)

/* libpq's last message, one line, without secrets; valid until the next call. */
const char *conn_error(struct conn *c);

/* ---- using ------------------------------------------------------------------------------------ */

/* Runs one statement with text parameters and text results, preparing it first if this connection
 * has not, in the same round trip. A statement that the server has lost (26000) or whose result type
 * changed (0A000) is prepared anew, once. 0 with the result, which may be an error result (look at
 * its SQLSTATE); -ETIMEDOUT, the deadline passed and the connection needs a cancel; -ECONNRESET, the
 * connection died (`*ret` may still hold the server's last words); -ENOMEM. The caller clears the
 * result. */
int conn_run(struct conn *c, const struct stmt *s, const char *const *values, uint64_t deadline_us,
	     struct pg_result **ret) _must_check_;

/* Parses a statement without keeping it and describes it: its columns are in the result. As
 * conn_run. */
int conn_describe(struct conn *c, const struct stmt *s, uint64_t deadline_us, struct pg_result **ret)
	_must_check_;

/* SQLSTATE of an error result, "" otherwise. */
const char *conn_sqlstate(const struct pg_result *r);

/* ---- after use -------------------------------------------------------------------------------- */

enum conn_condition {
	CONN_CLEAN,  /* nothing outstanding: may be used again */
	CONN_DIRTY,  /* results outstanding: cancel and drain */
	CONN_BROKEN, /* close */
};
enum conn_condition conn_condition(const struct conn *c);
/* Reads what has come, without waiting; the condition afterwards. */
enum conn_condition conn_drain(struct conn *c);

#endif
