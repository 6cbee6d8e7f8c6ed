#include "provost/conn.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include "conn_impl.h"
#include "provost/buf.h"

/* What every session of ours is started with unless the operator's URL says otherwise. */
static const char *const DEFAULTS[][2] = {
    {"application_name", "provost"}, {"keepalives_idle", "10"},     {"keepalives_interval", "5"},
    {"keepalives_count", "3"},       {"tcp_user_timeout", "10000"},
};

/* In the startup packet, so that they cost no round trip; a transaction pooler would refuse them.
 */
static const char SESSION_OPTIONS[] = "-c default_transaction_read_only=on"
                                      " -c plan_cache_mode=force_generic_plan"
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

static bool has_value(const PQconninfoOption *o)
{
	return o->val && *o->val;
}

static PGconn *start(const char *url, bool prepare)
{
	PQconninfoOption *given = PQconninfoParse(url, NULL);
	if (!given)
		return NULL;

	const char *key[64], *value[64];
	_cleanup_free_ char *options = NULL;
	size_t n = 0;
	for (PQconninfoOption *o = given; o->keyword && n < 56; o++) {
		if (!has_value(o) || (prepare && !strcmp(o->keyword, "options")))
			continue;
		key[n] = o->keyword;
		value[n++] = o->val;
	}
	for (size_t i = 0; i < ELEMENTSOF(DEFAULTS); i++) {
		bool set = false;
		for (PQconninfoOption *o = given; o->keyword && !set; o++)
			set = has_value(o) && !strcmp(o->keyword, DEFAULTS[i][0]);
		if (set)
			continue;
		key[n] = DEFAULTS[i][0];
		value[n++] = DEFAULTS[i][1];
	}
	if (prepare) {
		const char *own = "";
		for (PQconninfoOption *o = given; o->keyword; o++)
			if (!strcmp(o->keyword, "options") && has_value(o))
				own = o->val;
		options = xasprintf("%s %s", SESSION_OPTIONS, own);
		key[n] = "options";
		value[n++] = options;
	}
	key[n] = value[n] = NULL;

	PGconn *pg = PQconnectStartParams(key, value, 0);
	PQconninfoFree(given);
	return pg;
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
	c->pg = start(url, prepare);
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
		};
		int n = poll(p, ELEMENTSOF(p), (int)MIN(ms, 3600000u));
		if (n > 0 && p[1].revents)
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

/* Of the results of one Sync the first error counts, else the last. */
static void keep(PGresult **kept, PGresult *r)
{
	if (PQresultStatus(r) == PGRES_PIPELINE_ABORTED || (*kept && is_error(*kept))) {
		PQclear(r);
		return;
	}
	PQclear(*kept);
	*kept = r;
}

/* Takes the results that are complete. 1: the Sync's end is reached; 0: more must come. A NULL ends
 * each command; two in a row mean that libpq and we disagree about what is outstanding. */
static int take_results(struct conn *c, PGresult **kept)
{
	bool ended = false;
	while (!PQisBusy(c->pg)) {
		PGresult *r = PQgetResult(c->pg);
		if (PQstatus(c->pg) == CONNECTION_BAD) {
			if (r)
				keep(kept, r);
			return lost(c);
		}
		if (!r) {
			if (ended)
				return lost(c);
			ended = true;
			continue;
		}
		ended = false;
		if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) {
			PQclear(r);
			ALWAYS(c->syncs > 0);
			c->syncs--;
			return 1;
		}
		keep(kept, r);
	}
	return 0;
}

/* Receives until the Sync. What libpq will buffer is known only to the kernel, so from the second
 * read on, and large results have many, the bytes waiting are counted. */
static int receive(struct conn *c, uint64_t deadline_us, PGresult **kept)
{
	size_t received = 0;
	for (unsigned reads = 0;; reads++) {
		int flushing = PQflush(c->pg);
		if (flushing < 0)
			return lost(c);
		int r = wait_for(c, flushing ? POLLIN | POLLOUT : POLLIN, deadline_us);
		if (r < 0)
			return r;
		int waiting = 0;
		if (reads > 0 && ioctl(PQsocket(c->pg), FIONREAD, &waiting) == 0) {
			received += (size_t)waiting;
			if (received > CONN_RESULT_MAX) {
				c->broken = true;
				return -E2BIG;
			}
		}
		if (!PQconsumeInput(c->pg)) {
			/* The server's last words, if any, are in what was read before the end. */
			(void)take_results(c, kept);
			return lost(c);
		}
		r = take_results(c, kept);
		if (r != 0)
			return MIN(r, 0);
	}
}

static int finish(struct conn *c, uint64_t deadline_us, struct pg_result **ret)
{
	PGresult *kept = NULL;
	int r = sync_and_send(c);
	if (r == 0)
		r = receive(c, deadline_us, &kept);
	else
		(void)take_results(c, &kept);
	if (r == 0 && !kept)
		r = -ENOMEM;
	if (r < 0 && r != -ECONNRESET) {
		PQclear(kept);
		kept = NULL;
	}
	*ret = (struct pg_result *)kept;
	return r;
}

/* ---- statements ---------------------------------------------------------------------- */

static int run_once(struct conn *c, const struct stmt *s, const char *const *values,
                    uint64_t deadline_us, struct pg_result **ret)
{
	int n = (int)s->binds;
	if (!c->prepare) {
		if (!PQsendQueryParams(c->pg, s->sql, n, s->oid, values, NULL, NULL, 0))
			return lost(c);
		return finish(c, deadline_us, ret);
	}
	bool fresh = !is_prepared(c, s->id);
	if (fresh && !PQsendPrepare(c->pg, s->name, s->sql, n, s->oid))
		return lost(c);
	if (!PQsendQueryPrepared(c->pg, s->name, n, values, NULL, NULL, 0))
		return lost(c);
	int r = finish(c, deadline_us, ret);
	/* A prepared statement outlives its transaction, so even an error in running it leaves it
	 * behind; only an error in preparing does not, and then preparing again is what is needed.
	 */
	if (r == 0 && fresh && !is_error((PGresult *)*ret))
		return note_prepared(c, s->id);
	return r;
}

/* The server has no such statement, or has it with other columns than before. */
static bool is_stale(const struct pg_result *r)
{
	const char *state = conn_sqlstate(r);
	return !strcmp(state, "26000") || !strcmp(state, "0A000");
}

int conn_run(struct conn *c, const struct stmt *s, const char *const *values, uint64_t deadline_us,
             struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	int r = run_once(c, s, values, deadline_us, ret);
	if (r < 0 || !c->prepare)
		return r;
	if (!strcmp(conn_sqlstate(*ret), "42P05")) {
		/* It was prepared, by a run whose own error hid that. */
		conn_result_free(ret);
		r = note_prepared(c, s->id);
		return r < 0 ? r : run_once(c, s, values, deadline_us, ret);
	}
	if (!is_prepared(c, s->id) || !is_stale(*ret))
		return r;
	bool changed = !strcmp(conn_sqlstate(*ret), "0A000");
	conn_result_free(ret);
	if (changed) {
		char sql[64];
		snprintf(sql, sizeof sql, "/* provost */ DEALLOCATE %s", s->name);
		r = conn_command(c, sql, deadline_us, ret);
		if (r < 0)
			return r;
		conn_result_free(ret);
	}
	forget_prepared(c, s->id);
	return run_once(c, s, values, deadline_us, ret);
}

int conn_describe(struct conn *c, const struct stmt *s, uint64_t deadline_us,
                  struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	if (!PQsendPrepare(c->pg, "", s->sql, (int)s->binds, s->oid) ||
	    !PQsendDescribePrepared(c->pg, ""))
		return lost(c);
	return finish(c, deadline_us, ret);
}

int conn_explain(struct conn *c, const struct stmt *s, uint64_t deadline_us, struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	_cleanup_free_ char *sql = xasprintf("/* provost */ EXPLAIN (FORMAT JSON) %s", s->sql);
	_cleanup_free_ const char **nulls = xcalloc(s->binds + 1, sizeof *nulls);
	if (!PQsendQueryParams(c->pg, sql, (int)s->binds, s->oid, nulls, NULL, NULL, 0))
		return lost(c);
	return finish(c, deadline_us, ret);
}

int conn_command(struct conn *c, const char *sql, uint64_t deadline_us, struct pg_result **ret)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	*ret = NULL;
	if (!PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 0))
		return lost(c);
	return finish(c, deadline_us, ret);
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
	PGresult *dropped = NULL;
	if (PQflush(c->pg) < 0 || !PQconsumeInput(c->pg)) {
		c->broken = true;
		return CONN_BROKEN;
	}
	while (c->syncs > 0 && take_results(c, &dropped) == 1)
		;
	PQclear(dropped);
	return conn_condition(c);
}
