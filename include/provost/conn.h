/*
 * conn: one libpq connection, used asynchronously and with deadlines.
 *
 * The connection is in pipeline mode for all its life, so that preparing and running, and later
 * several statements, are one round trip. Its session is read-only by default (a GET never writes),
 * in UTC, and its server notices within a second when we are gone. A struct conn has one owner at
 * a time (see pool.h for whose turn it is); nothing here locks. Functions that wait do so in
 * poll(2), until their deadline, on clock_us.
 */
#ifndef PROVOST_CONN_H
#define PROVOST_CONN_H

#include "provost/errors.h"
#include "provost/stmt.h"

struct conn;
struct pg_result; /* libpq's PGresult */

enum {
	CONN_PREPARED_MAX = 8192, /* statements; a connection that holds more is retired */
	CONN_KEPT_MAX = 16 << 20, /* bytes of one row; past it the connection is not used again */
};

/* Takes the rows of a statement one by one, as they come, so that a large result is never held
 * twice. Embedded in what they go into. */
struct row_sink {
	/* One row, in a result of its own, which is freed afterwards unless the sink takes it over
	 * by setting it to NULL. 0, or a negative errno that ends the statement and that conn_run
	 * returns. */
	int (*row)(struct row_sink *sink, struct pg_result **row);
};

/* Sets what libpq reads from the environment. Once, before any other thread. */
void conn_global_init(void);

/* ---- connecting: the pool's thread, or a loader -------------------------------------- */

/* Begins to connect; resolves the host's name, which blocks. `number` names the connection in logs.
 * `prepare`: keep statements prepared; without it the server may be a transaction pooler. Once the
 * descriptor `interrupt`, which is the caller's and not read here, is readable, whatever waits
 * returns -ECANCELED; -1: never. NULL when out of memory. */
struct conn *conn_begin(const char *url, bool prepare, int interrupt, unsigned number);
/* Advances. 1: established; 0: call again when conn_fd is ready for conn_events (poll's);
 * -ECONNREFUSED: failed, see conn_error. */
int conn_advance(struct conn *c) _must_check_;
int conn_fd(const struct conn *c);
short conn_events(const struct conn *c);
/* How long an attempt may take: the URL's connect_timeout, or a default. */
uint64_t conn_connect_timeout_us(const struct conn *c);
/* Begins and waits. NULL with one error, or none when interrupted. */
struct conn *conn_open(const char *url, bool prepare, int interrupt, uint64_t deadline_us,
                       struct errors *errs);
void conn_free(struct conn **c);
#define _cleanup_conn_ _cleanup_(conn_free)

/* libpq's last message, in one line; a static text when there is none. Valid until the connection
 * is used again. */
const char *conn_error(struct conn *c);

/* ---- using --------------------------------------------------------------------------- */

/* Runs one statement with text parameters and text results, preparing it first if this session has
 * not, in the same round trip. Its rows go to the sink. A statement that the server has lost
 * (26000) or whose columns changed since it was prepared is prepared anew, once; no row has been
 * delivered then. 0 with the result: the columns, without rows, or an error (see conn_sqlstate).
 * -ETIMEDOUT: the deadline passed, the statement may be running still; -ECANCELED: interrupted,
 * likewise; -ECONNRESET: the connection died (`*ret` may hold the server's last words); -ENOMEM;
 * what the sink returned. `*ret` is NULL unless said otherwise; the caller frees it. */
int conn_run(struct conn *c, const struct stmt *s, const char *const *values, uint64_t deadline_us,
             struct row_sink *sink, struct pg_result **ret) _must_check_;

/* One command of a pipeline, which brings one result. */
struct conn_step {
	/* The statement with its values, prepared first if this session has not; or a text of
	 * Provost's own with `texts` text parameters (up to 4) at `values`. */
	const struct stmt *stmt;
	const char *sql;
	const char *const *values;
	unsigned texts;
	struct row_sink *sink; /* NULL: rows stay in the result */
	bool sync; /* a Sync follows it: an error skips what comes before the Sync only */
	/* Set by conn_pipeline; the caller frees it. NULL: skipped, or its result did not come. Of
	 * several (Prepare and Execute) the first error, else the last. */
	struct pg_result *result;
};

/* Sends all steps at once and takes their results, in one round trip. The last step has `sync`. A
 * statement that the session has lost fails with its error (26000, or 0A000 of a changed one; see
 * conn_forgot), and is forgotten, so that the next try prepares it. So does one that an earlier
 * step was to prepare, when that step was skipped. 0: the last Sync was reached, whatever the
 * results say. Else as conn_run; what came until then is in the steps, the server's last words in
 * the step that it was at, unless that had its result. `*ret_sent` (or NULL): false only when it is
 * certain that not a byte has left. */
int conn_pipeline(struct conn *c, struct conn_step *step, size_t steps, uint64_t deadline_us,
                  bool *ret_sent) _must_check_;

/* The same in pieces. conn_pipeline_begin queues the steps and sends what can be sent without
 * waiting. conn_pipeline_next waits for one Sync more: 1, there are more to come; 0, it was the
 * last; -ETIMEDOUT and -ECANCELED leave all as it is, and it may be called again. The steps are the
 * connection's until conn_pipeline_end, which is always called, and after which what has not come
 * is nobody's (CONN_DIRTY). */
int conn_pipeline_begin(struct conn *c, struct conn_step *step, size_t steps,
                        bool *ret_sent) _must_check_;
int conn_pipeline_next(struct conn *c, uint64_t deadline_us) _must_check_;
void conn_pipeline_end(struct conn *c);

/* Whether this result says that the session does not hold the statement (any more) as it was
 * prepared: nothing was done, and it may be run again. */
bool conn_forgot(const struct pg_result *r, const struct stmt *s);
/* The command tag of a success, "" of anything else: a COMMIT of a failed transaction is answered
 * "ROLLBACK", without an error. */
const char *conn_tag(const struct pg_result *r);

/* While somebody uses the connection: what waits returns -ECANCELED also when this descriptor of
 * theirs becomes readable. -1: no more; before it is given back. */
void conn_watch(struct conn *c, int abandon);
/* While on, only the deadline ends what waits: for somebody who has been interrupted and must know
 * how it ended. Off before it is given back. */
void conn_insist(struct conn *c, bool on);

/* Parses a statement without keeping it and describes it: its columns are in the result. Waits and
 * fails as conn_run. */
int conn_describe(struct conn *c, const struct stmt *s, uint64_t deadline_us,
                  struct pg_result **ret) _must_check_;

/* Plans a statement with NULL for every parameter: the plan as JSON in the result's one field. As
 * conn_run. */
int conn_explain(struct conn *c, const struct stmt *s, uint64_t deadline_us,
                 struct pg_result **ret) _must_check_;

/* Runs a text of Provost's own, without parameters. As conn_run. */
int conn_command(struct conn *c, const char *sql, uint64_t deadline_us,
                 struct pg_result **ret) _must_check_;

void conn_result_free(struct pg_result **r);
#define _cleanup_result_ _cleanup_(conn_result_free)

/* ---- notifications: the listener ----------------------------------------------------- */

/* Takes what was sent on the channels that the session listens to, in the order of the commits. */
struct notify_sink {
	/* `own`: this very session sent it, and no pooler stands between it and us. */
	void (*notified)(struct notify_sink *sink, const char *channel, const char *payload,
	                 bool own);
};

/* Sends a text of Provost's own with `n` text parameters, and a Sync, without waiting. 0;
 * -ECONNRESET. */
int conn_send(struct conn *c, const char *sql, const char *const *values, unsigned n) _must_check_;
/* Reads what has come, without waiting; notifications go to the sink. 0; -EIO: the server refused
 * what was sent, see conn_error; -ECONNRESET: the connection has ended. */
int conn_receive(struct conn *c, struct notify_sink *sink) _must_check_;
/* How many texts that were sent have not been answered. */
unsigned conn_outstanding(const struct conn *c);

/* SQLSTATE of an error result, "" of a success. An error without one is "XX000". */
const char *conn_sqlstate(const struct pg_result *r);

/* ---- after use ----------------------------------------------------------------------- */

enum conn_condition {
	CONN_CLEAN,  /* nothing outstanding: may be used again */
	CONN_DIRTY,  /* results outstanding: cancel and drain */
	CONN_BROKEN, /* close */
};
enum conn_condition conn_condition(const struct conn *c);
/* Reads and drops what has come, without waiting; the condition afterwards. */
enum conn_condition conn_drain(struct conn *c);

/* Makes it CONN_BROKEN: nobody is to use it again. */
void conn_give_up(struct conn *c);

#endif
