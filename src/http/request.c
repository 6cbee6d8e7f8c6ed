#include <errno.h>
#include <string.h>

#include "http_impl.h"
#include "provost/log.h"

enum {
	KEY_KEPT_MAX = 4 << 10, /* bytes of a connection's buffer for keys, between requests */
	BODY_GRACE = 1 << 20,   /* bytes past max_body that are read and dropped to say 413 */
};

const struct http_live *http_live(struct http *h)
{
	return (const struct http_live *)snapshot_use(h->live);
}

static void set_step(struct request *q, enum step step, uint64_t deadline_ms)
{
	struct client *c = client_of(q);
	/* Relaxed: the sweep acts on what it sees half a second late at most; it guards nothing. */
	atomic_store_explicit(&c->deadline_ms, deadline_ms, memory_order_relaxed);
	atomic_store_explicit(&c->step, step, memory_order_relaxed);
}

static enum step step_of(struct request *q)
{
	return atomic_load_explicit(&client_of(q)->step, memory_order_relaxed);
}

/* ---- the request line ---------------------------------------------------------------- */

static void keep_target(struct request *q, size_t max)
{
	size_t n = q->line.target.n;
	q->too_long = n > max;
	q->target = q->inline_target;
	if (q->too_long)
		n = 0;
	else if (n >= sizeof q->inline_target)
		q->target = malloc(n + 1);
	if (!q->target)
		return;
	memcpy(q->target, q->line.target.p, n);
	q->target[n] = '\0';
	q->target_len = n;
}

/* libmicrohttpd would store every pair of the query in the connection's memory, where we do not
 * look for them; and 0.9.75 leaves the client without an answer when they do not fit. What it
 * passes is its own read buffer, in which it looks for pairs after this. */
static void hide_query(const char *uri)
{
	char *query = strchr((char *)(uintptr_t)uri, '?');
	if (query && query[1])
		query[1] = '\0';
}

/* Called with the target as it came, before libmicrohttpd decodes it in place. */
void *request_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
	struct http *h = cls;
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct client *c = info ? info->socket_context : NULL;
	if (!c)
		return NULL;
	CHECK_MAGIC(c, CLIENT_MAGIC);
	struct request *q = &c->request;
	const struct http_live *live = http_live(h);
	q->connection = connection;
	q->started_us = clock_us();
	q->line.target = (struct slice){uri, strlen(uri)};
	keep_target(q, live->max_url);
	hide_query(uri);
	set_step(q, STEP_HEAD, q->started_us / 1000 + live->header_timeout_ms);
	return q;
}

/* ---- the head ------------------------------------------------------------------------ */

static bool is_sane_id(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	return n > 0 && n <= REQUEST_ID_MAX && !s[n];
}

/* 16 hexadecimal digits. */
static void make_id(char *to)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t n = jitter(UINT64_MAX);
	for (size_t i = 0; i < 16; i++, n >>= 4)
		*to++ = digits[n & 15];
	*to = '\0';
}

static void set_id(struct request *q)
{
	if (q->head.request_id && is_sane_id(q->head.request_id))
		strcpy(q->id, q->head.request_id);
	else
		make_id(q->id);
}

/* The first call. An answer queued here closes the connection, which is what a head that cannot be
 * trusted calls for. */
static enum MHD_Result take_head(struct request *q, const char *method, const char *version)
{
	struct client *c = client_of(q);
	const struct http_live *live = http_live(c->http);
	q->line.method = method;
	q->line.version = version;
	head_read(q->connection, &q->line, live->max_body, &q->head);
	set_id(q);
	if (c->refused)
		return respond_problem(q, 503, "Too many connections are open. Try again.");
	if (q->too_long)
		return respond_problem(q, 414, "The request target is too long.");
	if (!q->target)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	if (q->head.status)
		return respond_problem(q, q->head.status, q->head.why);
	if (target_parse(q->target, q->target_len, &q->parsed) < 0)
		return respond_problem(q, 400, "The request target is malformed.");
	const char *why = caller_refusal(q);
	if (why)
		return respond_problem(q, 403, why);
	set_step(q, STEP_BODY, clock_ms() + live->idle_timeout_ms);
	return MHD_YES;
}

/* Bodies that are of no use are read and dropped, so that the connection can go on. What is wrong
 * with the request is told at its end: an answer before it closes the connection. */
static enum MHD_Result take_body(struct request *q, const char *data, size_t *n)
{
	size_t max = http_live(http_of(q))->max_body;
	body_take(q, data, *n);
	*n = 0;
	return q->body > max + BODY_GRACE ? MHD_NO : MHD_YES;
}

/* ---- the job ------------------------------------------------------------------------- */

/* On a worker's or the janitor's thread: from here on the request is the http thread's again. */
static void waiter_done(struct waiter *w)
{
	struct request *q = (struct request *)((char *)w - offsetof(struct request, waiter));
	MHD_resume_connection(q->connection);
}

void request_keep_catalog(struct request *q, struct catalog *catalog)
{
	if (q->catalog)
		return;
	snapshot_ref(&catalog->object);
	q->catalog = catalog;
}

/* Given to waiters so far; only uniqueness matters. */
static _Atomic uint64_t tickets;

enum outcome request_refusal(int r)
{
	switch (r) {
	case -EAGAIN:
		return OUTCOME_QUEUE_FULL;
	case -ENOMEM:
		return OUTCOME_NO_MEMORY;
	default:
		return OUTCOME_STOPPING;
	}
}

/* Suspends first, so that the caller publishes after: the job may have ended before the engine
 * returns, and only what is suspended can be resumed. */
uint64_t request_suspend(struct request *q, unsigned waiters)
{
	struct client *c = client_of(q);
	uint64_t first = 1 + atomic_fetch_add_explicit(&tickets, waiters, memory_order_relaxed);
	atomic_store_explicit(&c->waiters, first << WAITERS_BITS | waiters, memory_order_relaxed);
	set_step(q, STEP_WAITING, 0);
	MHD_suspend_connection(q->connection);
	return first;
}

static void begin_waiting(struct request *q)
{
	q->waiter = (struct waiter){.done = waiter_done};
	q->waiter.ticket = request_suspend(q, 1);
}

/* `r`: what the engine said. */
static enum MHD_Result waiting(struct request *q, int r)
{
	if (r < 0) {
		q->refused = request_refusal(r);
		MHD_resume_connection(q->connection);
	}
	return MHD_YES;
}

static enum MHD_Result submit(struct request *q, const struct ask *a)
{
	request_keep_catalog(q, a->catalog);
	begin_waiting(q);
	return waiting(q, engine_submit(http_of(q)->engine, a, &q->waiter));
}

enum MHD_Result request_write(struct request *q, const struct ask *a)
{
	q->served = SERVED_WRITE;
	request_keep_catalog(q, a->catalog);
	begin_waiting(q);
	int r = engine_write(http_of(q)->engine, a, &q->waiter);
	if (q->key.cap > KEY_KEPT_MAX)
		buf_done(&q->key); /* while it waits, the job's copy will do */
	return waiting(q, r);
}

enum MHD_Result request_call(struct request *q, struct call *c)
{
	begin_waiting(q);
	return waiting(q, engine_call(http_of(q)->engine, c, &q->waiter));
}

/* ---- the cache ----------------------------------------------------------------------- */

static enum MHD_Result answer_found(struct request *q, struct cache_found *found)
{
	q->ttl_ms = found->ttl_ms;
	q->age_ms = found->age_ms;
	return respond_found(q, found);
}

bool request_answer_stale(struct request *q, enum MHD_Result *ret)
{
	struct cache_found found;
	/* Without an endpoint it is a built-in path's call that failed. */
	if (!q->endpoint || q->served == SERVED_WRITE)
		return false;
	struct cache_key key = cache_key(http_of(q)->cache, q->key.data, q->key.len);
	if (!lookup_stale(http_of(q), q->endpoint, key, &q->served, &found))
		return false;
	*ret = answer_found(q, &found);
	return true;
}

enum MHD_Result request_read(struct request *q, const struct ask *a)
{
	struct cache_found found;
	if (lookup(http_of(q), a, &q->served, &found))
		return answer_found(q, &found);
	return submit(q, a);
}

/* ---- what is asked ------------------------------------------------------------------- */

static enum MHD_Result dispatch(struct request *q)
{
	enum MHD_Result r;
	if (q->body_over)
		return respond_problem(q, 413, "The body is larger than this server accepts.");
	if (q->parsed.asterisk && !strcmp(q->line.method, "OPTIONS"))
		return respond_options(q, 1u << METHOD_GET);
	if (q->parsed.asterisk)
		return respond_problem(q, 400, "The target * is for OPTIONS only.");
	/* A preflight has no credentials, and tells nothing of the path. */
	if (q->head.preflight_method && !strcmp(q->line.method, "OPTIONS"))
		return respond_options(q, (1u << METHOD_COUNT) - 1);
	if (builtin_answer(q, &r))
		return r;
	return route_answer(q);
}

/* Called for the head, for each piece of the body, at its end, and once more after a resume. */
enum MHD_Result request_handle(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *data,
                               size_t *data_size, void **con_cls)
{
	struct request *q = *con_cls;
	(void)cls;
	(void)connection;
	(void)url;
	if (!q)
		return MHD_NO; /* the connection has no structure of ours: out of memory at accept
		                */
	switch (step_of(q)) {
	case STEP_HEAD:
		return take_head(q, method, version);
	case STEP_BODY:
		return *data_size ? take_body(q, data, data_size) : dispatch(q);
	case STEP_WAITING:
		if (q->batch)
			return batch_respond(q);
		if (q->revoke && !q->refused)
			return revoke_respond(q);
		return q->refused ? respond_refusal(q, q->refused) : respond_job(q);
	default:
		return MHD_NO;
	}
}

/* ---- the end ------------------------------------------------------------------------- */

static const char *served_name(const struct request *q)
{
	static const char *const names[SERVED_COUNT] = {
	    [SERVED_HIT] = "hit",
	    [SERVED_SWR] = "swr",
	    [SERVED_MAX_STALE] = "max-stale",
	    [SERVED_STALE_IF_ERROR] = "stale-if-error",
	    [SERVED_MISS] = "miss",
	    [SERVED_EXPIRED] = "expired",
	    [SERVED_BYPASS] = "bypass",
	    [SERVED_WRITE] = "write",
	};
	bool filled =
	    q->served == SERVED_MISS || q->served == SERVED_EXPIRED || q->served == SERVED_BYPASS;
	return filled && q->waiter.collapsed ? "collapsed" : names[q->served];
}

/* How much of an aborted answer has left nobody knows, so no bytes are claimed. */
static void log_request(struct request *q, bool aborted)
{
	static const struct answer nothing;
	const struct answer *a = q->waiter.job ? &q->waiter.job->answer : &nothing;
	bool head = !strcmp(q->line.method, "HEAD");
	const struct log_field sent = LOGU("bytes", head ? 0 : q->sent), none = LOGS("bytes", NULL);
	log_access("request",
	           (const struct log_field[]){
	               LOGS("id", *q->id ? q->id : NULL),
	               LOGS("method", q->line.method),
	               LOGS("route", q->catalog && q->endpoint ? q->endpoint->route : NULL),
	               LOGS("sub", q->identity ? q->identity->subject : NULL),
	               LOGU("status", q->status),
	               aborted ? none : sent,
	               LOGS("cache", served_name(q)),
	               LOGU("us", clock_us() - q->started_us),
	               LOGU("queue_us", a->queue_us),
	               LOGU("db_us", a->db_us),
	               {.type = aborted ? LOG_STRING : LOG_END, .key = "aborted", .s = "yes"},
	               {.type = LOG_END},
	           });
}

/* Keeps the memory of what the next request needs as well, unless this one's was uncommonly large.
 */
static void request_reset(struct request *q)
{
	struct values values = q->values;
	struct buf key = q->key;
	values_reset(&values);
	key.len = 0;
	key.failed = false;
	if (key.cap > KEY_KEPT_MAX)
		buf_done(&key);
	*q = (struct request){.values = values, .key = key};
}

void request_free_memory(struct request *q)
{
	values_done(&q->values);
	buf_done(&q->key);
}

void request_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                       enum MHD_RequestTerminationCode why)
{
	struct request *q = *con_cls;
	(void)connection;
	if (!q)
		return;
	*con_cls = NULL;
	if (log_access_enabled() && q->status)
		log_request(q, why != MHD_REQUEST_TERMINATED_COMPLETED_OK);

	const struct http_live *live = http_live(cls);
	if (q->target != q->inline_target)
		free(q->target);
	job_unref(&q->waiter.job);
	revoke_free(&q->revoke);
	upgrade_free(&q->upgrade);
	batch_free(&q->batch);
	body_done(q);
	if (q->catalog)
		snapshot_unref(&q->catalog->object);
	request_reset(q);
	/* The next request's first line must have come whole by then: idling, then dawdling. */
	set_step(q, STEP_IDLE, clock_ms() + live->idle_timeout_ms);
}
