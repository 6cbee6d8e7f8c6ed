#include <string.h>
#include <strings.h>

#include "http_impl.h"
#include "provost/buf.h"

static const char JSON[] = "application/json; charset=utf-8";
static const char PROBLEM[] = "application/problem+json";

static void add(struct MHD_Response *r, const char *name, const char *value)
{
	/* Fails only when out of memory, and then the header is missing rather than the answer. */
	(void)MHD_add_response_header(r, name, value);
}

static void add_timing(struct request *q, struct MHD_Response *r)
{
	const struct answer *a = &q->waiter.job->answer;
	char text[96];
	int n = snprintf(text, sizeof text, "queue;dur=%.3f, db;dur=%.3f", a->queue_us / 1000.0,
	                 a->db_us / 1000.0);
	if (q->served == SERVED_WRITE)
		snprintf(text + n, sizeof text - (size_t)n, ", sync;dur=%.3f", a->sync_us / 1000.0);
	add(r, "Server-Timing", text);
}

/* Whole seconds, rounded down: what has less than one left is not fresh for one. */
static int64_t seconds(int64_t ms)
{
	return (ms - (ms < 0 ? 999 : 0)) / 1000;
}

static void format_hit(enum served served, int64_t ttl_ms, char out[CACHE_STATUS_MAX])
{
	static const char *const detail[] = {
	    [SERVED_HIT] = "",
	    [SERVED_SWR] = "; detail=swr",
	    [SERVED_MAX_STALE] = "; detail=max-stale",
	    [SERVED_STALE_IF_ERROR] = "; detail=stale-if-error",
	};
	/* By hand: printf took a tenth of a hit's time of ours. */
	stpcpy(integer_text(stpcpy(out, "provost; hit; ttl="), seconds(ttl_ms)), detail[served]);
}

void cache_status_format(enum served served, int64_t ttl_ms, const struct waiter *w,
                         char out[CACHE_STATUS_MAX])
{
	static const char *const fwd[SERVED_COUNT] = {
	    [SERVED_MISS] = "miss",
	    [SERVED_EXPIRED] = "stale",
	    [SERVED_BYPASS] = "bypass",
	    [SERVED_WRITE] = "method",
	};
	if (served < SERVED_MISS) {
		format_hit(served, ttl_ms, out);
		return;
	}
	snprintf(out, CACHE_STATUS_MAX, "provost; fwd=%s%s%s", fwd[served],
	         w->collapsed               ? "; collapsed"
	         : w->job && w->job->stored ? "; stored"
	                                    : "",
	         w->stale ? "; detail=max-stale" : "");
}

static bool is_hit(const struct request *q)
{
	return q->served != SERVED_OTHER && q->served < SERVED_MISS;
}

static void format_varying(const struct request *q, struct varying *v)
{
	strcpy(v->id, q->id);
	cache_status_format(q->served, q->ttl_ms, &q->waiter, v->cache_status);
	*v->age = '\0';
	if (is_hit(q))
		integer_text(v->age, q->age_ms / 1000);
}

static void add_cache_status(struct request *q, struct MHD_Response *r)
{
	struct varying v;
	format_varying(q, &v);
	add(r, "Cache-Status", v.cache_status);
	if (*v.age)
		add(r, "Age", v.age);
}

void respond_add(struct request *q, struct MHD_Response *r, const char *type,
                 const char *cache_control)
{
	struct http *h = http_of(q);
	if (type)
		add(r, "Content-Type", type);
	add(r, "Cache-Control", cache_control);
	add(r, "X-Content-Type-Options", "nosniff");
	add(r, "X-Request-Id", q->id);
	if (q->served != SERVED_OTHER)
		add_cache_status(q, r);
	if (q->served != SERVED_OTHER && q->served != SERVED_WRITE)
		add(r, "Vary", "Accept-Encoding");
	if (q->waiter.job && q->served >= SERVED_MISS)
		add_timing(q, r);
	/* libmicrohttpd takes many things for the end of a chunk; where it found one that others do
	 * not, what follows is no request of this client's. */
	if (q->head.chunked ||
	    atomic_load_explicit(&h->phase, memory_order_relaxed) == HTTP_CLOSING)
		add(r, "Connection", "close");
}

static void add_common(struct request *q, struct MHD_Response *r, const char *type)
{
	respond_add(q, r, type, "private, no-cache");
}

/* Leaves the response to the caller. */
static enum MHD_Result queue(struct request *q, unsigned status, struct MHD_Response *r)
{
	struct client *c = client_of(q);
	q->status = status;
	atomic_store_explicit(&c->deadline_ms, clock_ms() + http_live(c->http)->idle_timeout_ms,
	                      memory_order_relaxed);
	atomic_store_explicit(&c->step, STEP_SENDING, memory_order_relaxed);
	return MHD_queue_response(q->connection, status, r);
}

enum MHD_Result respond_queue(struct request *q, unsigned status, struct MHD_Response *r)
{
	enum MHD_Result ok = queue(q, status, r);
	MHD_destroy_response(r);
	return ok;
}

struct MHD_Response *response_over(const char *body, size_t len, void (*done)(void *), void *arg)
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

struct MHD_Response *response_over_pieces(const struct MHD_IoVec *piece, unsigned count,
                                          void (*done)(void *), void *arg)
{
	struct MHD_Response *r = MHD_create_response_from_iovec(piece, count, done, arg);
	if (!r)
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
	return respond_queue(q, status, r);
}

/* ---- problem documents --------------------------------------------------------------- */

static struct MHD_Response *problem_response(struct request *q, struct buf *b)
{
	size_t len;
	char *text = buf_take(b, &len);
	struct MHD_Response *r = text ? response_over(text, len, free, text) : NULL;
	if (!r)
		return NULL;
	q->sent = len;
	add_common(q, r, PROBLEM);
	cors_add(q, r, false, NULL);
	return r;
}

static enum MHD_Result queue_problem(struct request *q, struct buf *b, unsigned status)
{
	struct MHD_Response *r = problem_response(q, b);
	if (!r)
		return MHD_NO;
	if (status == 503)
		add(r, "Retry-After", "1");
	return respond_queue(q, status, r);
}

enum MHD_Result respond_problem(struct request *q, unsigned status, const char *detail)
{
	_cleanup_buf_ struct buf b = {0};
	problem_text(&b, q->id, status, detail);
	return queue_problem(q, &b, status);
}

enum MHD_Result respond_bad_values(struct request *q)
{
	_cleanup_buf_ struct buf b = {0};
	unsigned status = problem_of_values(&b, q->id, &q->values);
	return queue_problem(q, &b, status);
}

enum MHD_Result respond_unauthenticated(struct request *q, const char *challenge)
{
	_cleanup_buf_ struct buf b = {0};
	problem_text(&b, q->id, 401,
	             strstr(challenge, "error=")
	                 ? "What was shown is not accepted; WWW-Authenticate says why."
	                 : "Say who is calling: a token in Authorization, or a session cookie.");
	struct MHD_Response *r = problem_response(q, &b);
	if (!r)
		return MHD_NO;
	add(r, "WWW-Authenticate", challenge);
	return respond_queue(q, 401, r);
}

enum MHD_Result respond_not_allowed(struct request *q, unsigned methods)
{
	_cleanup_buf_ struct buf b = {0};
	char allow[ALLOW_MAX];
	allow_format(methods, allow);
	problem_text(&b, q->id, 405, PROBLEM_NOT_ALLOWED);
	struct MHD_Response *r = problem_response(q, &b);
	if (!r)
		return MHD_NO;
	add(r, "Allow", allow);
	return respond_queue(q, 405, r);
}

enum MHD_Result respond_upgrade(struct request *q, const char *accept, MHD_UpgradeHandler upgraded)
{
	/* It adds Connection: Upgrade by itself. */
	struct MHD_Response *r = MHD_create_response_for_upgrade(upgraded, q);
	if (!r)
		return MHD_NO;
	add(r, "Upgrade", "websocket");
	add(r, "Sec-WebSocket-Accept", accept);
	add(r, "X-Request-Id", q->id);
	return respond_queue(q, 101, r);
}

enum MHD_Result respond_upgrade_required(struct request *q, const char *detail)
{
	_cleanup_buf_ struct buf b = {0};
	problem_text(&b, q->id, 426, detail);
	struct MHD_Response *r = problem_response(q, &b);
	if (!r)
		return MHD_NO;
	add(r, "Upgrade", "websocket");
	add(r, "Sec-WebSocket-Version", "13");
	return respond_queue(q, 426, r);
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
	return respond_queue(q, 204, r);
}

/* ---- bodies -------------------------------------------------------------------------- */

/* What may be sent for an endpoint's answer: the body, and of one in the cache its variants. */
struct representation {
	struct entry *entry; /* NULL: there is none, and no variants */
	const unsigned char *etag;
	struct body identity;
};

struct conditions {
	const char *hash;
	struct none_match match;
};

static enum MHD_Result read_condition(void *arg, enum MHD_ValueKind kind, const char *name,
                                      size_t n, const char *value, size_t value_n)
{
	struct conditions *c = arg;
	(void)kind;
	if (n == strlen("if-none-match") && !strncasecmp(name, "if-none-match", n))
		none_match_add(&c->match, c->hash, value, value_n);
	return MHD_YES;
}

unsigned respond_known(struct request *q, const char hash[ETAG_DIGITS])
{
	struct conditions c = {.hash = hash};
	if (!q->head.conditional)
		return 0;
	MHD_get_connection_values_n(q->connection, MHD_HEADER_KIND, read_condition, &c);
	return none_match_tags(&c.match);
}

/* The codings in which the body is there, bits of 1 << coding. */
static unsigned available(const struct representation *rep, unsigned codings)
{
	unsigned bits = 1u << CODING_IDENTITY;
	size_t len;
	for (unsigned i = 0; rep->entry && i < CODING_COUNT; i++)
		if (codings & 1u << i && entry_variant(rep->entry, i, &len))
			bits |= 1u << i;
	return bits;
}

/* The coding to send of those that are there. What the client would like better is made for those
 * who come later. */
static unsigned choose_coding(struct request *q, const struct representation *rep, unsigned there)
{
	struct http *h = http_of(q);
	unsigned codings = rep->entry ? http_live(h)->codings : 0;
	if (!codings)
		return CODING_IDENTITY;
	unsigned wanted = accept_wanted(&q->head.accept, codings, there);
	if (wanted != CODING_IDENTITY)
		engine_encode(h->engine, rep->entry, wanted);
	return accept_choose(&q->head.accept, there);
}

static struct body body_in(const struct representation *rep, unsigned coding)
{
	struct body b = rep->identity;
	b.counted = b.len;
	if (coding != CODING_IDENTITY)
		b.bytes = entry_variant(rep->entry, coding, &b.len);
	return b;
}

static enum MHD_Result respond_busy(struct request *q)
{
	q->served = SERVED_OTHER;
	return respond_problem(q, 503, "Too many large answers are being sent. Try again.");
}

/* Whether the answer has no field of this request's but those of struct varying. */
static bool is_plain_hit(struct request *q)
{
	struct http *h = http_of(q);
	return is_hit(q) && !q->head.conditional && !q->head.chunked &&
	       http_live(h)->origins.count == 0 &&
	       atomic_load_explicit(&h->phase, memory_order_relaxed) != HTTP_CLOSING;
}

static bool respond_kept(struct request *q, const struct representation *rep, unsigned coding,
                         size_t len, enum MHD_Result *ret)
{
	struct varying v;
	format_varying(q, &v);
	struct MHD_Response *r = kept_find(rep->entry, coding, &v);
	if (!r)
		return false;
	q->sent = len;
	*ret = queue(q, q->endpoint->status, r);
	rep->identity.done(rep->identity.owner);
	return true;
}

/* Type, Cache-Control, X-Content-Type-Options, Vary, ETag, and those of struct varying. */
enum { PLAIN_FIELDS = 8 };

/* Not one that lacks a field for want of memory, or has one of a reload's that came meanwhile. */
static bool has_plain_fields(struct MHD_Response *r, unsigned coding)
{
	return MHD_get_response_headers(r, NULL, NULL) ==
	       PLAIN_FIELDS + (coding != CODING_IDENTITY);
}

/* The same as respond_queue, for a plain hit. */
static enum MHD_Result queue_and_keep(struct request *q, const struct representation *rep,
                                      unsigned coding, struct MHD_Response *r)
{
	struct varying v;
	format_varying(q, &v);
	bool keep =
	    has_plain_fields(r, coding) && kept_put(rep->entry, coding, rep->identity.len, r, &v);
	return keep ? queue(q, q->endpoint->status, r) : respond_queue(q, q->endpoint->status, r);
}

/* Takes the owner's reference over. HEAD and 304 have the same body, of which libmicrohttpd sends
 * the length alone. */
static enum MHD_Result respond_representation(struct request *q, const struct representation *rep)
{
	char hash[ETAG_DIGITS], etag[ETAG_MAX];
	bool busy;
	unsigned there = available(rep, http_live(http_of(q))->codings);
	unsigned coding = choose_coding(q, rep, there);
	bool plain = rep->entry && is_plain_hit(q);
	enum MHD_Result ret;
	if (plain && respond_kept(q, rep, coding, body_in(rep, coding).len, &ret))
		return ret;
	etag_hex(rep->etag, hash);
	unsigned known = respond_known(q, hash);
	/* Tag and length of a 304 are of one representation, if possible the client's. */
	if (known & there)
		coding = none_match_pick(known & there, coding);
	struct body body = body_in(rep, coding);
	struct MHD_Response *r = sending_response(http_of(q), &body, &busy);
	if (busy)
		return respond_busy(q);
	if (!r)
		return MHD_NO;
	q->sent = known ? 0 : body.len;
	add_common(q, r, known ? NULL : JSON);
	cors_add(q, r, false, NULL);
	etag_format(hash, coding, etag);
	add(r, "ETag", etag);
	if (coding != CODING_IDENTITY && !known)
		add(r, "Content-Encoding", coding_name(coding));
	if (plain)
		return queue_and_keep(q, rep, coding, r);
	return respond_queue(q, known ? 304 : q->endpoint->status, r);
}

enum MHD_Result respond_batch(struct request *q, struct MHD_Response *r, size_t len, bool busy)
{
	if (busy)
		return respond_busy(q);
	if (!r)
		return MHD_NO;
	q->sent = len;
	add_common(q, r, JSON);
	cors_add(q, r, false, NULL);
	return respond_queue(q, 200, r);
}

/* ---- answers of the cache ------------------------------------------------------------ */

static enum MHD_Result respond_absence(struct request *q)
{
	static const struct answer none = {.outcome = OUTCOME_NO_ROW};
	const char *detail;
	unsigned status = status_of_answer(&none, &detail);
	return respond_problem(q, status, detail);
}

enum MHD_Result respond_found(struct request *q, struct cache_found *found)
{
	struct entry *e = found->entry;
	if (entry_kind(e) == ENTRY_ABSENCE) {
		entry_unref(&found->entry);
		return respond_absence(q);
	}
	struct representation rep = {.entry = e, .etag = entry_etag(e)};
	rep.identity = (struct body){.senders = entry_senders(e), .done = entry_done, .owner = e};
	rep.identity.bytes = entry_body(e, &rep.identity.len);
	found->entry = NULL;
	return respond_representation(q, &rep);
}

/* ---- answers of the engine ----------------------------------------------------------- */

static enum MHD_Result respond_failure(struct request *q, const struct answer *a)
{
	_cleanup_buf_ struct buf b = {0};
	unsigned status = problem_of_answer(&b, q->id, a, http_live(http_of(q))->development);
	if (a->outcome != OUTCOME_UNKNOWN)
		return queue_problem(q, &b, status);
	/* Not to be tried again without a look: no Retry-After. */
	struct MHD_Response *r = problem_response(q, &b);
	return r ? respond_queue(q, status, r) : MHD_NO;
}

enum MHD_Result respond_refusal(struct request *q, enum outcome outcome)
{
	const struct answer a = {.outcome = outcome};
	return respond_failure(q, &a);
}

static void job_done(void *j)
{
	struct job *job = j;
	job_unref(&job);
}

static enum MHD_Result respond_body(struct request *q, struct job *j)
{
	const struct answer *a = &j->answer;
	struct representation rep = {.etag = a->etag};
	rep.identity = (struct body){.bytes = a->body,
	                             .len = a->body_len,
	                             .senders = &j->senders,
	                             .done = job_done,
	                             .owner = j};
	job_ref(j);
	return respond_representation(q, &rep);
}

/* What a write returned, for its caller alone. It has been done, so there is no refusing to say so,
 * however much is being sent. */
static enum MHD_Result respond_written(struct request *q, struct job *j)
{
	const struct answer *a = &j->answer;
	job_ref(j);
	struct MHD_Response *r = response_over(a->body, a->body_len, job_done, j);
	if (!r)
		return MHD_NO;
	q->sent = a->body_len;
	add_common(q, r, JSON);
	cors_add(q, r, false, NULL);
	return respond_queue(q, q->endpoint->status, r);
}

static enum MHD_Result respond_nothing(struct request *q)
{
	struct MHD_Response *r = response_over("", 0, NULL, NULL);
	if (!r)
		return MHD_NO;
	add_common(q, r, NULL);
	cors_add(q, r, false, NULL);
	return respond_queue(q, q->endpoint->status, r);
}

enum MHD_Result respond_job(struct request *q)
{
	enum MHD_Result r;
	if (q->waiter.left)
		return respond_refusal(q, OUTCOME_ABANDONED);
	struct job *j = q->waiter.job;
	const struct answer *a = &j->answer;
	if (a->outcome == OUTCOME_OK && q->served == SERVED_WRITE && a->body)
		return respond_written(q, j);
	if (a->outcome == OUTCOME_OK)
		return a->body ? respond_body(q, j) : respond_nothing(q);
	if (engine_database_failed(http_of(q)->engine, a) && request_answer_stale(q, &r))
		return r;
	return respond_failure(q, a);
}
