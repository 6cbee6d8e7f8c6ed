#include <string.h>

#include "http_impl.h"
#include "provost/buf.h"

enum {
	LARGE = 64 << 10,      /* smaller bodies are bounded by the number of connections */
	LARGE_MAX = 512 << 20, /* bytes of larger ones in flight */
};

static const char JSON[] = "application/json; charset=utf-8";
static const char PROBLEM[] = "application/problem+json";

static void add(struct MHD_Response *r, const char *name, const char *value)
{
	/* Fails only when out of memory, and then the header is missing rather than the answer. */
	(void)MHD_add_response_header(r, name, value);
}

static void add_timing(struct request *q, struct MHD_Response *r)
{
	const struct answer *a = &q->job.answer;
	char text[96];
	snprintf(text, sizeof text, "queue;dur=%.3f, db;dur=%.3f", a->queue_us / 1000.0,
	         a->db_us / 1000.0);
	add(r, "Server-Timing", text);
}

/* Everything that all answers carry. */
static void add_common(struct request *q, struct MHD_Response *r, const char *type)
{
	struct http *h = http_of(q);
	if (type)
		add(r, "Content-Type", type);
	add(r, "Cache-Control", "private, no-cache");
	add(r, "X-Content-Type-Options", "nosniff");
	add(r, "X-Request-Id", q->id);
	if (q->endpoint &&
	    atomic_load_explicit(&client_of(q)->step, memory_order_relaxed) == STEP_WAITING)
		add_timing(q, r);
	/* libmicrohttpd takes many things for the end of a chunk; where it found one that others do
	 * not, what follows is no request of this client's. */
	if (q->head.chunked ||
	    atomic_load_explicit(&h->phase, memory_order_relaxed) == HTTP_CLOSING)
		add(r, "Connection", "close");
}

static enum MHD_Result queue(struct request *q, unsigned status, struct MHD_Response *r)
{
	struct client *c = client_of(q);
	q->status = status;
	atomic_store_explicit(&c->deadline_ms, clock_ms() + http_live(c->http)->idle_timeout_ms,
	                      memory_order_relaxed);
	atomic_store_explicit(&c->step, STEP_SENDING, memory_order_relaxed);
	enum MHD_Result ok = MHD_queue_response(q->connection, status, r);
	MHD_destroy_response(r);
	return ok;
}

/* A response over bytes that belong to `done(arg)`. NULL, with the bytes given back, when out of
 * memory: the handler then returns MHD_NO, which closes the connection. */
static struct MHD_Response *response_over(const char *body, size_t len, void (*done)(void *),
                                          void *arg)
{
	struct MHD_Response *r;
	if (done)
		r = MHD_create_response_from_buffer_with_free_callback_cls(
		    len, (void *)(uintptr_t)body, done, arg);
	else
		r = MHD_create_response_from_buffer(len, (void *)(uintptr_t)body,
		                                    MHD_RESPMEM_PERSISTENT);
	if (!r && done)
		done(arg);
	return r;
}

enum MHD_Result respond_json(struct request *q, unsigned status, const char *body, size_t len,
                             void (*done)(void *), void *arg)
{
	struct MHD_Response *r = response_over(body, len, done, arg);
	if (!r)
		return MHD_NO;
	q->sent = len;
	add_common(q, r, JSON);
	cors_add(q, r, false, NULL);
	return queue(q, status, r);
}

/* ---- problem documents: RFC 9457 ----------------------------------------------------- */

static void member(struct buf *b, const char *name, const char *value)
{
	buf_add_json_string(b, name, strlen(name));
	buf_addc(b, ':');
	buf_add_json_string(b, value, strlen(value));
}

static void problem_open(struct request *q, struct buf *b, unsigned status, const char *detail)
{
	buf_adds(b, "{\"type\":\"about:blank\",");
	member(b, "title", status_title(status));
	buf_addf(b, ",\"status\":%u,", status);
	member(b, "detail", detail);
	buf_addc(b, ',');
	member(b, "instance", q->id);
	buf_addc(b, ',');
	member(b, "message", detail);
}

static struct MHD_Response *problem_close(struct request *q, struct buf *b, unsigned status)
{
	size_t len;
	buf_addc(b, '}');
	char *text = buf_take(b, &len);
	struct MHD_Response *r = text ? response_over(text, len, free, text) : NULL;
	if (!r)
		return NULL;
	q->sent = len;
	add_common(q, r, PROBLEM);
	cors_add(q, r, false, NULL);
	if (status == 503)
		add(r, "Retry-After", "1");
	return r;
}

static enum MHD_Result queue_problem(struct request *q, struct buf *b, unsigned status)
{
	struct MHD_Response *r = problem_close(q, b, status);
	return r ? queue(q, status, r) : MHD_NO;
}

enum MHD_Result respond_problem(struct request *q, unsigned status, const char *detail)
{
	_cleanup_buf_ struct buf b = {0};
	problem_open(q, &b, status, detail);
	return queue_problem(q, &b, status);
}

enum MHD_Result respond_bad_values(struct request *q)
{
	_cleanup_buf_ struct buf b = {0};
	problem_open(q, &b, 400,
	             q->values.errors == 1 ? "A parameter is not valid."
	                                   : "Several parameters are not valid.");
	buf_adds(&b, ",\"errors\":[");
	for (size_t i = 0; i < q->values.errors; i++) {
		const struct value_error *e = &q->values.error[i];
		buf_adds(&b, i ? ",{" : "{");
		member(&b, "name", e->name);
		buf_addc(&b, ',');
		member(&b, "in", param_in_name(e->in));
		buf_addc(&b, ',');
		member(&b, "reason", e->reason);
		buf_addc(&b, '}');
	}
	buf_addc(&b, ']');
	return queue_problem(q, &b, 400);
}

enum MHD_Result respond_not_allowed(struct request *q, unsigned methods)
{
	_cleanup_buf_ struct buf b = {0};
	char allow[ALLOW_MAX];
	allow_format(methods, allow);
	problem_open(q, &b, 405, "The path does not answer to this method; Allow says to which.");
	struct MHD_Response *r = problem_close(q, &b, 405);
	if (!r)
		return MHD_NO;
	add(r, "Allow", allow);
	return queue(q, 405, r);
}

enum MHD_Result respond_options(struct request *q, unsigned methods)
{
	char allow[ALLOW_MAX];
	struct MHD_Response *r = response_over("", 0, NULL, NULL);
	if (!r)
		return MHD_NO;
	allow_format(methods, allow);
	add_common(q, r, NULL);
	add(r, "Allow", allow);
	cors_add(q, r, q->head.preflight_method != NULL, allow);
	return queue(q, 204, r);
}

/* ---- answers of the engine ----------------------------------------------------------- */

static enum MHD_Result respond_failure(struct request *q)
{
	_cleanup_buf_ struct buf b = {0};
	const struct answer *a = &q->job.answer;
	const char *detail;
	unsigned status = status_of_answer(a, &detail);
	problem_open(q, &b, status, detail);
	if (a->outcome == OUTCOME_SQL_ERROR && http_live(http_of(q))->development) {
		buf_adds(&b, ",\"database\":{");
		member(&b, "sqlstate", a->sqlstate);
		buf_addc(&b, ',');
		member(&b, "message", a->message ? a->message : "");
		buf_addc(&b, '}');
	}
	return queue_problem(q, &b, status);
}

/* A body that counts as in flight until its response is freed, which is when it is sent or its
 * connection gone. */
struct large {
	struct http *http;
	size_t len;
	void *memory;
	void (*memory_free)(void *);
};

static void large_free(void *p)
{
	struct large *l = p;
	l->memory_free(l->memory);
	/* Relaxed: a bound, which guards nothing. */
	atomic_fetch_sub_explicit(&l->http->large_bytes, l->len, memory_order_relaxed);
	free(l);
}

/* NULL when too much is in flight, or no memory; the answer is the caller's still. */
static struct large *large_new(struct http *h, const struct answer *a)
{
	size_t before =
	    atomic_fetch_add_explicit(&h->large_bytes, a->body_len, memory_order_relaxed);
	struct large *l = before + a->body_len <= LARGE_MAX ? malloc(sizeof *l) : NULL;
	if (!l) {
		atomic_fetch_sub_explicit(&h->large_bytes, a->body_len, memory_order_relaxed);
		return NULL;
	}
	*l = (struct large){h, a->body_len, a->memory, a->memory_free};
	return l;
}

/* The response takes the answer's memory over. */
static struct MHD_Response *response_of_answer(struct request *q)
{
	struct answer *a = &q->job.answer;
	void (*done)(void *) = a->memory_free;
	void *arg = a->memory;
	if (a->body_len > LARGE && done) {
		arg = large_new(http_of(q), a);
		if (!arg)
			return NULL;
		done = large_free;
	}
	a->memory_free = NULL;
	return response_over(a->body ? a->body : "", a->body_len, done, arg);
}

static enum MHD_Result refuse_large(struct request *q)
{
	struct answer *a = &q->job.answer;
	a->memory_free(a->memory);
	a->memory_free = NULL;
	return respond_problem(q, 503, "Too many large answers are being sent. Try again.");
}

enum MHD_Result respond_answer(struct request *q)
{
	struct answer *a = &q->job.answer;
	if (a->outcome != OUTCOME_OK)
		return respond_failure(q);
	struct MHD_Response *r = response_of_answer(q);
	if (!r)
		return a->memory_free ? refuse_large(q) : MHD_NO;
	q->sent = a->body_len;
	add_common(q, r, a->body ? JSON : NULL);
	cors_add(q, r, false, NULL);
	if (*a->etag) {
		char etag[sizeof a->etag + 2];
		snprintf(etag, sizeof etag, "\"%s\"", a->etag);
		add(r, "ETag", etag);
	}
	return queue(q, q->endpoint->status, r);
}
