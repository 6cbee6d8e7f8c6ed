#include "provost/conn.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "conn_impl.h"
#include "provost/buf.h"

/* What every session of ours is started with unless the operator's URL says otherwise. */
static const char *const DEFAULTS[][2] = {
    {"application_name", "provost"}, {"keepalives_idle", "10"},     {"keepalives_interval", "5"},
    {"keepalives_count", "3"},       {"tcp_user_timeout", "10000"},
};

enum { CONNECT_TIMEOUT_US = 5000000 }; /* where the URL has no connect_timeout */

/* In the startup packet, so that they cost no round trip; a transaction pooler would refuse them.
 */
static const char SESSION_OPTIONS[] = "-c default_transaction_read_only=on"
                                      " -c client_connection_check_interval=1000";

void conn_global_init(void)
{
	/* libpq sends these in the startup packet, which transaction poolers accept. */
	setenv("PGTZ", "UTC", 1);
	setenv("PGDATESTYLE", "ISO, YMD", 1);
	setenv("PGCLIENTENCODING", "UTF8", 1);
}

/* ---- connecting ---------------------------------------------------------------------- */

static void ignore_notice(void *arg, const PGresult *r)
{
	(void)arg;
	(void)r;
}

/* The operator's value of a connection parameter, or NULL. */
static const char *given_value(const PQconninfoOption *given, const char *keyword)
{
	for (const PQconninfoOption *o = given; o->keyword; o++)
		if (!strcmp(o->keyword, keyword) && o->val && *o->val)
			return o->val;
	return NULL;
}

/* Ours first, so that the operator's go before. NULL when out of memory. */
static char *session_options(const char *own)
{
	char *text;
	return asprintf(&text, "%s %s", SESSION_OPTIONS, own ? own : "") < 0 ? NULL : text;
}

static uint64_t connect_timeout_us(const PQconninfoOption *given)
{
	const char *text = given_value(given, "connect_timeout");
	unsigned long s = text ? strtoul(text, NULL, 10) : 0;
	return s > 0 && s <= 3600 ? s * 1000000 : CONNECT_TIMEOUT_US;
}

/* Begins a session with the operator's parameters, and ours where they leave room. */
static PGconn *start(const PQconninfoOption *given, bool prepare)
{
	const char *key[64], *value[64];
	_cleanup_free_ char *options = NULL;
	size_t n = 0;
	for (const PQconninfoOption *o = given; o->keyword && n < 56; o++) {
		bool ours = (prepare && !strcmp(o->keyword, "options")) ||
		            !strcmp(o->keyword, "client_encoding");
		if (ours || !o->val || !*o->val)
			continue;
		key[n] = o->keyword;
		value[n++] = o->val;
	}
	for (size_t i = 0; i < ELEMENTSOF(DEFAULTS); i++) {
		if (given_value(given, DEFAULTS[i][0]))
			continue;
		key[n] = DEFAULTS[i][0];
		value[n++] = DEFAULTS[i][1];
	}
	if (prepare) {
		options = session_options(given_value(given, "options"));
		if (!options)
			return NULL;
		key[n] = "options";
		value[n++] = options;
	}
	key[n] = value[n] = NULL;

	return PQconnectStartParams(key, value, 0);
}

struct conn *conn_begin(const char *url, bool prepare, int interrupt, unsigned number)
{
	struct conn *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->magic = CONN_MAGIC;
	c->number = number;
	c->prepare = prepare;
	c->interrupt = interrupt;
	c->abandon = -1;
	PQconninfoOption *given = PQconninfoParse(url, NULL);
	if (given) {
		c->pg = start(given, prepare);
		c->connect_timeout_us = connect_timeout_us(given);
		PQconninfoFree(given);
	}
	c->polling = PGRES_POLLING_WRITING;
	if (!c->pg) {
		conn_free(&c);
		return NULL;
	}
	PQsetNoticeReceiver(c->pg, ignore_notice, NULL);
	return c;
}

static int ready(struct conn *c)
{
	if (PQsetnonblocking(c->pg, 1) < 0 || !PQenterPipelineMode(c->pg))
		return -ECONNREFUSED;
	return 1;
}

int conn_advance(struct conn *c)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	if (PQstatus(c->pg) == CONNECTION_BAD)
		return -ECONNREFUSED;
	c->polling = PQconnectPoll(c->pg);
	if (c->polling == PGRES_POLLING_OK)
		return ready(c);
	return c->polling == PGRES_POLLING_FAILED ? -ECONNREFUSED : 0;
}

int conn_fd(const struct conn *c)
{
	return PQsocket(c->pg);
}

uint64_t conn_connect_timeout_us(const struct conn *c)
{
	return c->connect_timeout_us;
}

short conn_events(const struct conn *c)
{
	if (PQpipelineStatus(c->pg) != PQ_PIPELINE_OFF)
		return POLLIN;
	return c->polling == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
}

/* Waits for `events` on the socket. 0, -ETIMEDOUT or -ECANCELED; errors of the socket show up in
 * libpq. */
static int wait_for(struct conn *c, short events, uint64_t deadline_us)
{
	for (;;) {
		uint64_t now = clock_us();
		if (now >= deadline_us)
			return -ETIMEDOUT;
		uint64_t ms = (deadline_us - now + 999) / 1000;
		struct pollfd p[] = {
		    {.fd = PQsocket(c->pg), .events = events},
		    {.fd = c->interrupt, .events = POLLIN}, /* poll passes over -1 */
		    {.fd = c->abandon, .events = POLLIN},
		};
		int n = poll(p, ELEMENTSOF(p), (int)MIN(ms, 3600000u));
		if (n > 0 && (p[1].revents || p[2].revents))
			return -ECANCELED;
		if (n > 0 || (n < 0 && errno != EINTR))
			return 0;
	}
}

struct conn *conn_open(const char *url, bool prepare, int interrupt, uint64_t deadline_us,
                       struct errors *errs)
{
	struct conn *c = conn_begin(url, prepare, interrupt, 0);
	if (!c) {
		errors_add(errs, NULL, 0, "out of memory while connecting to the database");
		return NULL;
	}
	int r = PQstatus(c->pg) == CONNECTION_BAD ? -ECONNREFUSED : 0;
	while (r == 0) {
		r = wait_for(c, conn_events(c), deadline_us);
		if (r == 0)
			r = conn_advance(c);
	}
	if (r == 1)
		return c;
	if (r != -ECANCELED)
		errors_add(errs, NULL, 0, "cannot connect to the database: %s",
		           r == -ETIMEDOUT ? "no answer in time" : conn_error(c));
	conn_free(&c);
	return NULL;
}

void conn_free(struct conn **cp)
{
	struct conn *c = *cp;
	if (!c)
		return;
	CHECK_MAGIC(c, CONN_MAGIC);
	*cp = NULL;
	PQfinish(c->pg);
	free(c->prepared);
	c->magic = 0;
	free(c);
}

const char *conn_error(struct conn *c)
{
	/* libpq's buffer is ours to read only; its lines are folded into one in a copy that lives
	 * as long as the connection's own thread needs it for a log line. */
	static _Thread_local char line[512];
	const char *m = PQerrorMessage(c->pg);
	size_t n = 0;
	for (; *m && n + 1 < sizeof line; m++)
		line[n++] = *m == '\n' || *m == '\t' ? ' ' : *m;
	while (n > 0 && line[n - 1] == ' ')
		n--;
	line[n] = '\0';
	return n ? line : "connection closed";
}

/* ---- what is prepared ---------------------------------------------------------------- */

static bool is_prepared(const struct conn *c, uint64_t id)
{
	for (size_t i = 0; i < c->prepareds; i++)
		if (c->prepared[i] == id)
			return true;
	return false;
}

static int note_prepared(struct conn *c, uint64_t id)
{
	if (is_prepared(c, id))
		return 0;
	if (c->prepareds == c->prepared_cap) {
		size_t cap = c->prepared_cap ? 2 * c->prepared_cap : 32;
		uint64_t *p = realloc(c->prepared, cap * sizeof *p);
		if (!p)
			return -ENOMEM;
		c->prepared = p;
		c->prepared_cap = cap;
	}
	c->prepared[c->prepareds++] = id;
	return 0;
}

static void forget_prepared(struct conn *c, uint64_t id)
{
	for (size_t i = 0; i < c->prepareds; i++)
		if (c->prepared[i] == id)
			c->prepared[i--] = c->prepared[--c->prepareds];
}

/* ---- sending and receiving ----------------------------------------------------------- */

/* What one Sync is to bring. */
struct exchange {
	struct row_sink *sink; /* NULL: rows stay in the result */
	PGresult *kept;        /* of its results the first error, else the last */
};

static int lost(struct conn *c)
{
	c->broken = true;
	return -ECONNRESET;
}

/* Ends what has been queued with a Sync and begins to send it. */
static int sync_and_send(struct conn *c)
{
	if (!PQpipelineSync(c->pg))
		return lost(c);
	c->syncs++;
	return PQflush(c->pg) < 0 ? lost(c) : 0;
}

static bool is_error(const PGresult *r)
{
	return PQresultStatus(r) == PGRES_FATAL_ERROR;
}

static void keep(struct exchange *x, PGresult *r)
{
	if (PQresultStatus(r) == PGRES_PIPELINE_ABORTED || (x->kept && is_error(x->kept))) {
		PQclear(r);
		return;
	}
	PQclear(x->kept);
	x->kept = r;
}

/* The rows of the command that libpq is at come one by one, if there is somebody to take them. It
 * refuses, harmlessly, for a command that returns none. */
static void ask_for_rows(struct conn *c, const struct exchange *x)
{
	if (x->sink)
		(void)PQsetSingleRowMode(c->pg);
}

/* One result that is not the Sync's. */
static int take_result(struct conn *c, struct exchange *x, PGresult *r)
{
	if (PQresultMemorySize(r) > CONN_KEPT_MAX)
		c->bloated = true;
	if (PQresultStatus(r) == PGRES_SINGLE_TUPLE) {
		struct pg_result *row = (struct pg_result *)r;
		/* Without a sink it is a row of a statement that was given up. */
		int err = x->sink ? x->sink->row(x->sink, &row) : 0;
		conn_result_free(&row);
		if (err < 0)
			c->broken = true; /* the rest is still coming, and nobody wants it */
		return err;
	}
	int err = 0;
	/* A prepared statement outlives the failure of what is run after it, also if that was given
	 * up and this is the drain. */
	if (c->preparing && PQresultStatus(r) == PGRES_COMMAND_OK)
		err = note_prepared(c, c->preparing);
	c->preparing = 0;
	keep(x, r);
	return err;
}

/* Takes the results that are complete. 1: the Sync's end is reached; 0: more must come. A NULL ends
 * each command; two in a row mean that libpq and we disagree about what is outstanding. */
static int take_results(struct conn *c, struct exchange *x)
{
	bool ended = false;
	while (!PQisBusy(c->pg)) {
		PGresult *r = PQgetResult(c->pg);
		if (PQstatus(c->pg) == CONNECTION_BAD) {
			if (r)
				keep(x, r);
			return lost(c);
		}
		if (!r) {
			if (ended)
				return lost(c);
			ended = true;
			ask_for_rows(c, x);
			continue;
		}
		ended = false;
		if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) {
			PQclear(r);
			ALWAYS(c->syncs > 0);
			c->syncs--;
			return 1;
		}
		int err = take_result(c, x, r);
		if (err < 0)
			return err;
	}
	return 0;
}

/* Receives until the Sync. */
static int receive(struct conn *c, uint64_t deadline_us, struct exchange *x)
{
	for (;;) {
		int flushing = PQflush(c->pg);
		if (flushing < 0)
			return lost(c);
		int r = wait_for(c, flushing ? POLLIN | POLLOUT : POLLIN, deadline_us);
		if (r < 0)
			return r;
		bool alive = PQconsumeInput(c->pg);
		r = take_results(c, x);
		if (r != 0)
			return MIN(r, 0);
		/* The server's last words, if any, were in what was read before the end. */
		if (!alive)
			return lost(c);
	}
}

static int finish(struct conn *c, uint64_t deadline_us, struct exchange *x, struct pg_result **ret)
{
	ask_for_rows(c, x);
	int r = sync_and_send(c);
	if (r == 0)
		r = receive(c, deadline_us, x);
	else
		(void)take_results(c, x);
	if (r == 0 && !x->kept)
		r = -ENOMEM;
	if (r < 0 && r != -ECONNRESET) {
		PQclear(x->kept);
		x->kept = NULL;
	}
	*ret = (struct pg_result *)x->kept;
	return r;
}

/* ---- statements ---------------------------------------------------------------------- */

static int run_once(struct conn *c, const struct stmt *s, const char *const *values,
                    uint64_t deadline_us, struct row_sink *sink, struct pg_result **ret)
{
	struct exchange x = {.sink = sink};
	int n = (int)s->binds;
	if (!c->prepare) {
		if (!PQsendQueryParams(c->pg, s->sql, n, s->oid, values, NULL, NULL, 0))
			return lost(c);
		return finish(c, deadline_us, &x, ret);
	}
	if (!is_prepared(c, s->id)) {
		if (!PQsendPrepare(c->pg, s->name, s->sql, n, s->oid))
			return lost(c);
		c->preparing = s->id;
	}
	if (!PQsendQueryPrepared(c->pg, s->name, n, values, NULL, NULL, 0))
		return lost(c);
	return finish(c, deadline_us, &x, ret);
}

/* Its columns are others than when it was prepared. The same SQLSTATE may come from the statement
 * itself. */
static bool has_changed(const struct pg_result *r)
{
	const char *where = PQresultErrorField((const PGresult *)r, PG_DIAG_SOURCE_FUNCTION);
	return !strcmp(conn_sqlstate(r), "0A000") && where &&
	       !strcmp(where, "RevalidateCachedQuery");
}

/* The session holds it no more. Here, too, the statement itself may say the same of another. */
static bool has_gone(const struct pg_result *r, const struct stmt *s)
{
	const char *message = PQresultErrorField((const PGresult *)r, PG_DIAG_MESSAGE_PRIMARY);
	return !strcmp(conn_sqlstate(r), "26000") && message && strstr(message, s->name);
}

int conn_run(struct conn *c, const struct stmt *s, const char *const *values, uint64_t deadline_us,
             struct row_sink *sink, struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	bool known = is_prepared(c, s->id);
	int r = run_once(c, s, values, deadline_us, sink, ret);
	if (r < 0 || !known)
		return r;
	bool changed = has_changed(*ret);
	if (!changed && !has_gone(*ret, s))
		return r;
	conn_result_free(ret);
	if (changed) {
		char sql[64];
		snprintf(sql, sizeof sql, "/* provost */ DEALLOCATE %s", s->name);
		r = conn_command(c, sql, deadline_us, ret);
		conn_result_free(ret);
		if (r < 0)
			return r;
	}
	forget_prepared(c, s->id);
	return run_once(c, s, values, deadline_us, sink, ret);
}

void conn_watch(struct conn *c, int abandon)
{
	c->abandon = abandon;
}

int conn_describe(struct conn *c, const struct stmt *s, uint64_t deadline_us,
                  struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	struct exchange x = {0};
	if (!PQsendPrepare(c->pg, "", s->sql, (int)s->binds, s->oid) ||
	    !PQsendDescribePrepared(c->pg, ""))
		return lost(c);
	return finish(c, deadline_us, &x, ret);
}

int conn_explain(struct conn *c, const struct stmt *s, uint64_t deadline_us, struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	struct exchange x = {0};
	_cleanup_free_ char *sql = xasprintf("/* provost */ EXPLAIN (FORMAT JSON) %s", s->sql);
	_cleanup_free_ const char **nulls = xcalloc(s->binds + 1, sizeof *nulls);
	if (!PQsendQueryParams(c->pg, sql, (int)s->binds, s->oid, nulls, NULL, NULL, 0))
		return lost(c);
	return finish(c, deadline_us, &x, ret);
}

int conn_command(struct conn *c, const char *sql, uint64_t deadline_us, struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	struct exchange x = {0};
	if (!PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 0))
		return lost(c);
	return finish(c, deadline_us, &x, ret);
}

void conn_result_free(struct pg_result **r)
{
	PQclear((PGresult *)*r);
	*r = NULL;
}

const char *conn_sqlstate(const struct pg_result *result)
{
	const PGresult *r = (const PGresult *)result;
	if (!r || !is_error(r))
		return "";
	const char *s = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	return s && strlen(s) == 5 ? s : "XX000";
}

/* ---- after use ----------------------------------------------------------------------- */

enum conn_condition conn_condition(const struct conn *c)
{
	if (c->broken || PQstatus(c->pg) != CONNECTION_OK)
		return CONN_BROKEN;
	if (c->syncs > 0)
		return CONN_DIRTY;
	/* A session left inside a transaction would hand its snapshot to the next borrower. */
	return PQtransactionStatus(c->pg) == PQTRANS_IDLE ? CONN_CLEAN : CONN_BROKEN;
}

enum conn_condition conn_drain(struct conn *c)
{
	struct exchange x = {0};
	if (PQflush(c->pg) < 0 || !PQconsumeInput(c->pg)) {
		c->broken = true;
		return CONN_BROKEN;
	}
	while (c->syncs > 0 && take_results(c, &x) == 1)
		;
	PQclear(x.kept);
	return conn_condition(c);
}

void conn_give_up(struct conn *c)
{
	c->broken = true;
}
