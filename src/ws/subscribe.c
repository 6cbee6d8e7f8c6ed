#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "ops.h"
#include "topics.h"

enum { CODE_BASE = 4000 }; /* what a status of HTTP's is past, as a code */

static const char NO_MEMORY[] = "The server is out of memory. Try again.";

/* ---- what is said of a path ---------------------------------------------------------- */

/* `{"ev":"data","path":P,"etag":E,"body":` in h->text. */
static bool open_data(struct hub *h, const struct topic *t, const struct live_read *r)
{
	char digits[ETAG_DIGITS], etag[ETAG_MAX];
	struct buf *b = ops_begin(h, "data");
	etag_hex(r->etag, digits);
	etag_text(digits, "", etag);
	ops_add_text(b, "path", t->text, t->path_len);
	ops_add_text(b, "etag", etag, strlen(etag));
	if (r->stale)
		buf_adds(b, ",\"stale\":true");
	buf_adds(b, ",\"body\":");
	return !b->failed;
}

struct message *data_message(struct hub *h, const struct topic *t, const struct live_read *r)
{
	if (!open_data(h, t, r)) {
		buf_done(&h->text);
		return NULL;
	}
	const struct iovec part[] = {
	    {h->text.data, h->text.len},
	    {(void *)(uintptr_t)r->body, r->body_len},
	    {(void *)(uintptr_t) "}", 1},
	};
	return message_of(MESSAGE_DATA, WS_TEXT, part, ELEMENTSOF(part));
}

static void add_path(struct buf *b, const char *text, size_t n, bool live)
{
	if (text)
		ops_add_text(b, "path", text, n);
	buf_addf(b, ",\"live\":%s", live ? "true" : "false");
}

struct message *path_error(struct hub *h, const char *text, size_t n, unsigned status,
                           const char *detail, bool live)
{
	struct buf *b = ops_begin(h, "error");
	buf_addf(b, ",\"code\":%u", CODE_BASE + status);
	ops_add_text(b, "message", detail, strlen(detail));
	add_path(b, text, n, live);
	return ops_message(h, MESSAGE_DATA);
}

/* ---- operations ---------------------------------------------------------------------- */

/* `text` NULL: there is no path that could be named. What stood before still does. */
static void refuse(const struct op *o, const char *text, size_t n, unsigned status,
                   const char *detail)
{
	struct buf *b = ops_begin(o->h, "error");
	if (o->id)
		buf_addf(b, ",\"id\":%s", o->id);
	buf_addf(b, ",\"code\":%u", CODE_BASE + status);
	ops_add_text(b, "message", detail, strlen(detail));
	add_path(b, text, n, text && watch_find(o->c, text, n));
	client_reply(o->h, o->c, ops_message(o->h, MESSAGE_REPLY));
}

static const char *read_path(const struct op *o, size_t *ret_n)
{
	const char *text = op_text(o, "path", ret_n);
	if (text && *ret_n > 0 && *ret_n <= LIVE_PATH_MAX && !memchr(text, '\0', *ret_n))
		return text;
	refuse(o, NULL, 0, 400, "path must be that of a GET, with its query, in 2048 bytes");
	return NULL;
}

/* What the client has already. A tag that is none of ours matches nothing. */
static int read_etag(const struct op *o, struct said *ret)
{
	struct json_object *v;
	size_t n = 0;
	*ret = (struct said){0};
	if (!json_object_object_get_ex(o->root, "etag", &v) || !v)
		return 0;
	const char *text = op_text(o, "etag", &n);
	if (!text)
		return -EINVAL;
	if (etag_parse(text, n, ret->etag) == 0)
		ret->status = 200;
	return 0;
}

/* Whether it may watch one more. */
static bool has_room(const struct op *o, const char *text, size_t n)
{
	const struct client *c = o->c;
	if (c->watched < HUB_PATHS_PER_CLIENT && c->watched_bytes + n <= WATCHED_BYTES)
		return true;
	refuse(o, text, n, 429, "You watch too many paths.");
	return false;
}

static struct topic *find(const struct op *o, const char *text, size_t n)
{
	struct live_problem problem;
	struct live_path p;
	struct topic *t = NULL;
	if (live_find(o->h->topics->live, text, n, o->c->identity, &p, &problem) < 0) {
		/* Unless it is but for want of memory, nobody may watch it any more. */
		struct watch *w = problem.status != 503 ? watch_find(o->c, text, n) : NULL;
		if (w)
			watch_free(o->h, w);
		refuse(o, text, n, problem.status, problem.detail);
		return NULL;
	}
	int r = topic_get(o->h, text, n, &p, &t);
	if (r < 0)
		refuse(o, text, n, 503,
		       r == -EBUSY ? "So many paths are watched that there is no room for more."
		                   : NO_MEMORY);
	return t;
}

/* What the topic says now is for whoever comes now only if nothing was changed since: they may have
 * changed it. */
static void arrive(struct hub *h, struct watch *w)
{
	struct topic *t = w->topic;
	w->since = t->state == TOPIC_READING ? t->reads : 0;
	if (topic_is_current(h, t)) {
		watch_offer(h, w);
		return;
	}
	watch_decline(w);
	topic_hasten(h, t);
}

/* NULL: it was refused. */
static struct watch *watch(const struct op *o, const char *text, size_t n)
{
	struct watch *w = watch_find(o->c, text, n);
	struct topic *t = w || has_room(o, text, n) ? find(o, text, n) : NULL;
	if (!t)
		return NULL;
	if (w) {
		if (watch_move(o->h, w, t) == 0)
			return w;
	} else if ((w = watch_new(o->h, o->c, t))) {
		return w;
	}
	topic_put(o->h, t);
	refuse(o, text, n, 503, NO_MEMORY);
	return NULL;
}

static void answer(const struct op *o, const char *text, size_t n)
{
	struct buf *b = op_ok(o);
	if (b)
		ops_add_text(b, "path", text, n);
	op_ok_end(o, b);
}

void op_subscribe(const struct op *o)
{
	struct said had;
	size_t n = 0;
	const char *text = read_path(o, &n);
	if (!text)
		return;
	if (!o->h->topics->live) {
		refuse(o, text, n, 503, "No path can be watched here.");
		return;
	}
	if (read_etag(o, &had) < 0) {
		refuse(o, text, n, 400, "etag must be a text");
		return;
	}
	struct watch *w = watch(o, text, n);
	if (!w)
		return;
	w->has = had;
	answer(o, text, n);
	/* Who is flooded with answers has been closed. */
	if (client_is_open(o->c))
		arrive(o->h, w);
}

void op_unsubscribe(const struct op *o)
{
	size_t n = 0;
	const char *text = read_path(o, &n);
	struct watch *w = text ? watch_find(o->c, text, n) : NULL;
	if (w)
		watch_free(o->h, w);
	if (text)
		answer(o, text, n);
}

/* ---- rights that may have changed ---------------------------------------------------- */

static void end_watch(struct hub *h, struct watch *w, unsigned status, const char *detail)
{
	struct client *c = w->client;
	const struct topic *t = w->topic;
	struct message *m = path_error(h, t->text, t->path_len, status, detail, false);
	watch_free(h, w);
	client_put(h, c, m);
}

void watch_review(struct hub *h, struct watch *w)
{
	const struct topic *t = w->topic;
	struct topic *to = NULL;
	struct live_problem problem;
	struct live_path p;
	if (live_find(h->topics->live, t->text, t->path_len, w->client->identity, &p, &problem) <
	    0) {
		/* Out of memory: it stays what it was, until the next look. */
		if (problem.status != 503)
			end_watch(h, w, problem.status, problem.detail);
		return;
	}
	int r = topic_get(h, t->text, t->path_len, &p, &to);
	bool moves = r == 0 && to != t;
	if (r == 0)
		r = watch_move(h, w, to);
	if (r < 0) {
		if (to)
			topic_put(h, to);
		end_watch(h, w, 503, "There is no room for the path any more.");
	} else if (moves) {
		arrive(h, w);
	}
}
