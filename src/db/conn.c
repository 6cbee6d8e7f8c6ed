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

int conn_wait(struct conn *c, short events, uint64_t deadline_us)
{
	for (;;) {
		uint64_t now = clock_us();
		if (now >= deadline_us)
			return -ETIMEDOUT;
		uint64_t ms = (deadline_us - now + 999) / 1000;
		struct pollfd p[] = {
		    {.fd = PQsocket(c->pg), .events = events},
		    /* poll passes over -1 */
		    {.fd = c->insisting ? -1 : c->interrupt, .events = POLLIN},
		    {.fd = c->insisting ? -1 : c->abandon, .events = POLLIN},
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
		r = conn_wait(c, conn_events(c), deadline_us);
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
	free(c->expected);
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

/* ---- statements ---------------------------------------------------------------------- */

/* Waits for what has been begun, of one step, and gives its result. */
static int finish(struct conn *c, int r, struct conn_step *step, uint64_t deadline_us,
                  struct pg_result **ret)
{
	if (r == 0)
		r = conn_pipeline_next(c, deadline_us);
	conn_pipeline_end(c);
	if (r == 0 && !step->result)
		r = -ENOMEM;
	if (r < 0 && r != -ECONNRESET)
		conn_result_free(&step->result);
	*ret = step->result;
	return r;
}

static int run_step(struct conn *c, struct conn_step *step, uint64_t deadline_us,
                    struct pg_result **ret)
{
	return finish(c, conn_pipeline_begin(c, step, 1, NULL), step, deadline_us, ret);
}

int conn_run(struct conn *c, const struct stmt *s, const char *const *values, uint64_t deadline_us,
             struct row_sink *sink, struct pg_result **ret)
{
	bool known = pipeline_holds(c, s->id);
	struct conn_step step = {.stmt = s, .values = values, .sink = sink, .sync = true};
	int r = run_step(c, &step, deadline_us, ret);
	if (r < 0 || !known || !conn_forgot(*ret, s))
		return r;
	conn_result_free(ret);
	return run_step(c, &step, deadline_us, ret);
}

int conn_describe(struct conn *c, const struct stmt *s, uint64_t deadline_us,
                  struct pg_result **ret)
{
	struct conn_step step = {.sync = true};
	int r = pipeline_room(c, 3);
	if (r == 0)
		r = pipeline_sent(c, PQsendPrepare(c->pg, "", s->sql, (int)s->binds, s->oid), &step,
		                  EXPECT_RESULT, 0);
	if (r == 0)
		r = pipeline_sent(c, PQsendDescribePrepared(c->pg, ""), &step, EXPECT_RESULT, 0);
	if (r == 0)
		r = pipeline_sent(c, PQpipelineSync(c->pg), &step, EXPECT_SYNC, 0);
	return finish(c, r, &step, deadline_us, ret);
}

int conn_explain(struct conn *c, const struct stmt *s, uint64_t deadline_us, struct pg_result **ret)
{
	struct conn_step step = {.sync = true};
	_cleanup_free_ char *sql = xasprintf("/* provost */ EXPLAIN (FORMAT JSON) %s", s->sql);
	_cleanup_free_ const char **nulls = xcalloc(s->binds + 1, sizeof *nulls);
	int r = pipeline_room(c, 2);
	if (r == 0)
		r = pipeline_sent(
		    c, PQsendQueryParams(c->pg, sql, (int)s->binds, s->oid, nulls, NULL, NULL, 0),
		    &step, EXPECT_RESULT, 0);
	if (r == 0)
		r = pipeline_sent(c, PQpipelineSync(c->pg), &step, EXPECT_SYNC, 0);
	return finish(c, r, &step, deadline_us, ret);
}

int conn_command(struct conn *c, const char *sql, uint64_t deadline_us, struct pg_result **ret)
{
	struct conn_step step = {.sql = sql, .sync = true};
	return run_step(c, &step, deadline_us, ret);
}

/* ---- results ------------------------------------------------------------------------- */

void conn_result_free(struct pg_result **r)
{
	PQclear((PGresult *)*r);
	*r = NULL;
}

const char *conn_sqlstate(const struct pg_result *result)
{
	const PGresult *r = (const PGresult *)result;
	if (PQresultStatus(r) != PGRES_FATAL_ERROR || !r)
		return "";
	const char *s = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	return s && strlen(s) == 5 ? s : "XX000";
}

const char *conn_tag(const struct pg_result *result)
{
	PGresult *r = (PGresult *)(uintptr_t)result;
	ExecStatusType status = PQresultStatus(r);
	return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? PQcmdStatus(r) : "";
}

bool conn_has_changed(const struct pg_result *r)
{
	const char *where = PQresultErrorField((const PGresult *)r, PG_DIAG_SOURCE_FUNCTION);
	return !strcmp(conn_sqlstate(r), "0A000") && where &&
	       !strcmp(where, "RevalidateCachedQuery");
}

bool conn_has_gone(const struct pg_result *r, const char *name)
{
	const char *message = PQresultErrorField((const PGresult *)r, PG_DIAG_MESSAGE_PRIMARY);
	return !strcmp(conn_sqlstate(r), "26000") && message && strstr(message, name);
}

bool conn_forgot(const struct pg_result *r, const struct stmt *s)
{
	return conn_has_changed(r) || conn_has_gone(r, s->name);
}

/* ---- after use ----------------------------------------------------------------------- */

enum conn_condition conn_condition(const struct conn *c)
{
	if (c->broken || PQstatus(c->pg) != CONNECTION_OK)
		return CONN_BROKEN;
	if (c->next < c->expecteds)
		return CONN_DIRTY;
	/* A session left inside a transaction would hand its snapshot to the next borrower. */
	return PQtransactionStatus(c->pg) == PQTRANS_IDLE ? CONN_CLEAN : CONN_BROKEN;
}

void conn_give_up(struct conn *c)
{
	c->broken = true;
}

void conn_watch(struct conn *c, int abandon)
{
	c->abandon = abandon;
}

void conn_insist(struct conn *c, bool on)
{
	c->insisting = on;
}
