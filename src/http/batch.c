/*
 * POST /api/batch: many GETs of endpoints as one request. Each is answered as it would be by itself
 * for the same caller; those that the cache cannot answer travel to the database together.
 */
#include <errno.h>
#include <string.h>

#include "http_impl.h"
#include "provost/key.h"

enum {
	BATCH_ANSWER_MAX = 32 << 20, /* bytes of all bodies in an answer */
};

struct item {
	struct waiter waiter;
	struct batch *batch;
	const char *path; /* in batch->paths, as it was sent */
	struct target target;
	const struct endpoint *endpoint;
	size_t key_at, key_len; /* in batch->keys */
	enum served served;
	bool asked;                   /* a job is to answer it */
	enum outcome refused;         /* unless the engine did not take it */
	struct cache_found found;     /* what the cache had; entry NULL: nothing */
	unsigned status;              /* of a problem; 0: none so far */
	size_t problem_at, problem_n; /* in batch->problems */
};

struct batch {
	struct request *request;
	atomic_uint pending; /* waiters to be answered, and whoever begins; the last one resumes */
	char *paths;
	size_t items;
	struct item item[BATCH_MAX];
	struct buf keys, problems;

	/* The answer. */
	struct buf text; /* what stands between the bodies */
	size_t bytes;    /* of bodies so far */
	unsigned senders;
	struct piece {
		const char *bytes; /* NULL: of the text, from `at` on */
		size_t at, n;
	} piece[2 * BATCH_MAX + 1];
	unsigned pieces;
};

static void batch_done(void *arg)
{
	struct batch *b = arg;
	for (size_t i = 0; i < b->items; i++) {
		job_unref(&b->item[i].waiter.job);
		if (b->item[i].found.entry)
			entry_unref(&b->item[i].found.entry);
	}
	buf_done(&b->keys);
	buf_done(&b->problems);
	buf_done(&b->text);
	free(b->paths);
	free(b);
}

void batch_free(struct batch **b)
{
	if (*b)
		batch_done(*b);
	*b = NULL;
}

/* The members are declared as any endpoint's are. */
struct endpoint *batch_declare(void)
{
	_cleanup_free_ char *text = xasprintf("-- @route POST /api/batch\n"
	                                      "-- @body requests text[] required max=%d\n"
	                                      "SELECT :requests",
	                                      BATCH_MAX);
	_cleanup_errors_ struct errors *errs = errors_new();
	struct endpoint *e = endpoint_parse("batch", "batch", text, strlen(text), errs);
	ALWAYS(e);
	return e;
}

/* ---- what is asked ------------------------------------------------------------------- */

/* One element of the array literal that the member became, unescaped in place; all of them are
 * quoted. */
static char *take_element(char **at)
{
	char *from = *at + 2, *to = from, *start = from; /* behind `{"` or `,"` */
	for (; *from != '"'; from++) {
		from += *from == '\\';
		*to++ = *from;
	}
	*at = from + 1;
	*to = '\0';
	return start;
}

static void split_paths(struct batch *b)
{
	char *at = b->paths;
	while (at[1] == '"')
		b->item[b->items++].path = take_element(&at);
}

/* Only paths: no other method, no other host. */
static int check_paths(struct batch *b, struct values *v)
{
	static const char why[VALUES_REASON_MAX] =
	    "must be the path of a GET, such as /api/admin/stats";
	for (size_t i = 0; i < b->items; i++) {
		struct item *it = &b->item[i];
		char name[32];
		int n = snprintf(name, sizeof name, "requests[%zu]", i);
		bool good = target_parse(it->path, strlen(it->path), &it->target) == 0;
		if (good && !it->target.asterisk && !it->target.authority.n)
			continue;
		if (values_report(v, name, (size_t)n, IN_BODY, why) < 0)
			return -ENOMEM;
	}
	return v->errors ? -EINVAL : 0;
}

static int read_batch(struct request *q)
{
	const struct endpoint *e = http_of(q)->batch;
	const struct slice body = {q->content.len ? q->content.data : "", q->content.len};
	int r = values_read(&q->values, e, NULL, 0, (struct slice){"", 0});
	if (r == 0)
		r = values_read_body(&q->values, e, body);
	if (r < 0)
		return r;
	struct batch *b = q->batch = calloc(1, sizeof *b);
	if (!b || !(b->paths = strdup(values_get(&q->values, 0))))
		return -ENOMEM;
	b->request = q;
	split_paths(b);
	return check_paths(b, &q->values);
}

/* ---- one of them --------------------------------------------------------------------- */

static const char *id_of(const struct item *it)
{
	return it->batch->request->id;
}

static void problem_begin(struct item *it)
{
	it->problem_at = it->batch->problems.len;
}

static void problem_end(struct item *it, unsigned status)
{
	it->status = status;
	it->problem_n = it->batch->problems.len - it->problem_at;
}

static void refuse(struct item *it, unsigned status, const char *why)
{
	problem_begin(it);
	problem_text(&it->batch->problems, id_of(it), status, why);
	problem_end(it, status);
}

/* Whether there is an endpoint for it, for this caller. */
static bool route(struct item *it, const struct catalog *catalog, struct route_match *m)
{
	const struct request *q = it->batch->request;
	catalog_route(catalog, METHOD_GET, it->target.path, m);
	it->endpoint = m->endpoint;
	if (!m->methods)
		refuse(it, 404, "There is no endpoint at this path.");
	else if (!m->endpoint)
		refuse(it, 405, "The path does not answer to GET.");
	else if (!m->endpoint->is_public && !identity_allows(q->identity, &m->endpoint->roles))
		refuse(it, 403, "This is not for your role.");
	else if (strlen(it->path) > http_live(http_of(it->batch->request))->max_url)
		refuse(it, 414, "The request target is too long.");
	return !it->status;
}

static bool read_values(struct item *it, const struct route_match *m)
{
	struct batch *b = it->batch;
	struct request *q = b->request;
	struct key_caller caller = caller_key(q);
	values_reset(&q->values);
	int r = values_read(&q->values, m->endpoint, m->path, m->paths, it->target.query);
	it->key_at = b->keys.len;
	if (r == 0)
		r = key_build(m->endpoint, &q->values, &caller, &b->keys);
	it->key_len = b->keys.len - it->key_at;
	if (r == -EINVAL) {
		problem_begin(it);
		problem_end(it, problem_of_values(&b->problems, q->id, &q->values));
	} else if (r < 0) {
		refuse(it, 503, "The server is out of memory. Try again.");
	}
	return r == 0;
}

static struct ask ask_of(struct item *it, struct catalog *catalog)
{
	struct batch *b = it->batch;
	const struct cache *cache = http_of(b->request)->cache;
	return (struct ask){
	    .catalog = catalog,
	    .endpoint = it->endpoint,
	    .key = cache_key(cache, b->keys.data + it->key_at, it->key_len),
	    .request_id = b->request->id,
	};
}

static void look(struct item *it, struct catalog *catalog)
{
	struct route_match m;
	if (!route(it, catalog, &m) || !read_values(it, &m))
		return;
	const struct ask a = ask_of(it, catalog);
	it->asked = !lookup(http_of(it->batch->request), &a, &it->served, &it->found);
}

/* ---- the database -------------------------------------------------------------------- */

static void release(struct batch *b)
{
	/* Acquire and release: the last one sees what all others did to their items. */
	if (atomic_fetch_sub_explicit(&b->pending, 1, memory_order_acq_rel) == 1)
		MHD_resume_connection(b->request->connection);
}

static void waiter_done(struct waiter *w)
{
	release(((struct item *)((char *)w - offsetof(struct item, waiter)))->batch);
}

/* `count` items are to be asked for. Suspended first, published after. */
static enum MHD_Result ask(struct batch *b, struct catalog *catalog, unsigned count)
{
	struct ask asks[BATCH_MAX];
	struct waiter *waiters[BATCH_MAX];
	struct item *asked[BATCH_MAX];
	int ret[BATCH_MAX];
	size_t n = 0;
	struct request *q = b->request;
	request_keep_catalog(q, catalog);
	atomic_init(&b->pending, count + 1);
	uint64_t ticket = request_suspend(q, count);
	for (size_t i = 0; i < b->items; i++) {
		struct item *it = &b->item[i];
		if (!it->asked)
			continue;
		it->waiter = (struct waiter){.done = waiter_done, .ticket = ticket + n};
		asks[n] = ask_of(it, catalog);
		waiters[n] = &it->waiter;
		asked[n++] = it;
	}
	engine_submit_batch(http_of(q)->engine, asks, waiters, ret, n);
	/* The request stays suspended until this thread, too, has let go of it. */
	for (size_t i = 0; i < n; i++) {
		if (ret[i] == 0)
			continue;
		asked[i]->refused = request_refusal(ret[i]);
		release(b);
	}
	release(b);
	return MHD_YES;
}

enum MHD_Result batch_begin(struct request *q)
{
	struct catalog *catalog = (struct catalog *)snapshot_use(http_of(q)->catalog);
	const char *why = "The body is not JSON.";
	unsigned status = body_refusal(q, &why), count = 0;
	if (status)
		return respond_problem(q, status, why);
	int r = read_batch(q);
	if (r == -EINVAL)
		return respond_bad_values(q);
	if (r < 0)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	if (!catalog)
		return respond_problem(q, 503, "The server is starting. Try again.");
	for (size_t i = 0; i < q->batch->items; i++) {
		struct item *it = &q->batch->item[i];
		it->batch = q->batch;
		look(it, catalog);
		count += it->asked;
	}
	return count ? ask(q->batch, catalog, count) : batch_respond(q);
}

/* ---- the answer ---------------------------------------------------------------------- */

static void add_piece(struct batch *b, const char *bytes, size_t at, size_t n)
{
	if (n)
		b->piece[b->pieces++] = (struct piece){bytes, at, n};
}

/* The text since the last piece of it. */
static void end_text(struct batch *b, size_t *from)
{
	add_piece(b, NULL, *from, b->text.len - *from);
	*from = b->text.len;
}

static void add_text(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, ",\"%s\":", name);
	if (value)
		buf_add_json_string(b, value, strlen(value));
	else
		buf_adds(b, "null");
}

static void add_head(struct item *it, unsigned status, const char *etag)
{
	char cache[CACHE_STATUS_MAX];
	struct buf *out = &it->batch->text;
	if (it->served != SERVED_OTHER)
		cache_status_format(it->served, it->found.ttl_ms, &it->waiter, cache);
	buf_adds(out, "{\"path\":");
	buf_add_json_string(out, it->path, strlen(it->path));
	buf_addf(out, ",\"status\":%u", status);
	add_text(out, "etag", etag);
	add_text(out, "cache", it->served != SERVED_OTHER ? cache : NULL);
	buf_adds(out, ",\"body\":");
}

/* The body itself is sent from where it lies. */
static void add_body(struct item *it, const char *body, size_t n, const unsigned char *hash,
                     size_t *from)
{
	struct batch *b = it->batch;
	char digits[ETAG_DIGITS], etag[ETAG_MAX];
	if (n > BATCH_ANSWER_MAX - b->bytes) {
		refuse(it, 507,
		       "The answers to this batch are too large together: ask for this one "
		       "by itself.");
		return;
	}
	b->bytes += n;
	etag_hex(hash, digits);
	etag_format(digits, CODING_IDENTITY, etag);
	add_head(it, it->endpoint->status, etag);
	end_text(b, from);
	add_piece(b, body, 0, n);
}

static void fail(struct item *it, const struct answer *a)
{
	struct request *q = it->batch->request;
	problem_begin(it);
	problem_end(it, problem_of_answer(&it->batch->problems, q->id, a,
	                                  http_live(http_of(q))->development));
}

/* What its job came to, unless the cache has something for when the database has failed. */
static void take_job(struct item *it, size_t *from)
{
	struct http *h = http_of(it->batch->request);
	const struct answer none = {.outcome = it->waiter.left ? OUTCOME_ABANDONED : it->refused};
	const struct answer *a = it->waiter.job ? &it->waiter.job->answer : &none;
	struct cache_key key = ask_of(it, NULL).key;
	if (a->outcome == OUTCOME_OK && a->body) {
		add_body(it, a->body, a->body_len, a->etag, from);
	} else if (a->outcome == OUTCOME_OK) {
		add_head(it, it->endpoint->status, NULL);
		buf_adds(&it->batch->text, "null");
	} else if (!engine_database_failed(h->engine, a) ||
	           !lookup_stale(h, it->endpoint, key, &it->served, &it->found)) {
		fail(it, a);
	}
}

static void take_entry(struct item *it, size_t *from)
{
	static const struct answer none = {.outcome = OUTCOME_NO_ROW};
	const struct entry *e = it->found.entry;
	size_t n;
	if (entry_kind(e) == ENTRY_ABSENCE) {
		fail(it, &none);
		return;
	}
	const char *body = entry_body(e, &n);
	add_body(it, body, n, entry_etag(e), from);
}

static void add_item(struct item *it, size_t *from)
{
	struct batch *b = it->batch;
	if (it->asked)
		take_job(it, from);
	if (it->found.entry)
		take_entry(it, from);
	if (it->status) {
		add_head(it, it->status, NULL);
		if (!b->problems.failed)
			buf_add(&b->text, b->problems.data + it->problem_at, it->problem_n);
	}
	buf_addc(&b->text, '}');
}

/* All pieces stand still now. Takes the batch over. */
static struct MHD_Response *response_of(struct batch *b, bool *ret_busy)
{
	struct MHD_IoVec iov[ELEMENTSOF(b->piece)];
	size_t total = 0;
	for (unsigned i = 0; i < b->pieces; i++) {
		const struct piece *p = &b->piece[i];
		iov[i].iov_base = p->bytes ? p->bytes : b->text.data + p->at;
		iov[i].iov_len = p->n;
		total += p->n;
	}
	const struct body body = {.pieces = iov,
	                          .count = b->pieces,
	                          .len = total,
	                          .counted = total,
	                          .senders = &b->senders,
	                          .done = batch_done,
	                          .owner = b};
	return sending_response(http_of(b->request), &body, ret_busy);
}

enum MHD_Result batch_respond(struct request *q)
{
	struct batch *b = q->batch;
	size_t from = 0;
	bool busy;
	buf_addc(&b->text, '[');
	for (size_t i = 0; i < b->items; i++) {
		if (i)
			buf_addc(&b->text, ',');
		add_item(&b->item[i], &from);
	}
	buf_addc(&b->text, ']');
	end_text(b, &from);
	if (b->text.failed || b->problems.failed)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	size_t len = b->text.len + b->bytes;
	q->batch = NULL;
	struct MHD_Response *r = response_of(b, &busy);
	return respond_batch(q, r, len, busy);
}
