#include <errno.h>
#include <string.h>

#include "topics.h"

/* ---- watches ------------------------------------------------------------------------- */

struct watch *watch_find(const struct client *c, const char *text, size_t n)
{
	struct watch *w;
	TAILQ_FOREACH (w, &c->watches, link)
		if (w->topic->path_len == n && !memcmp(w->topic->text, text, n))
			return w;
	return NULL;
}

static void want(struct hub *h, struct watch *w)
{
	struct client *c = w->client;
	if (w->wanted)
		return;
	w->wanted = c->wants = true;
	TAILQ_INSERT_TAIL(&c->wanted, w, want);
	COUNT(h, postponed, 1);
}

static void want_no_more(struct watch *w)
{
	struct client *c = w->client;
	if (!w->wanted)
		return;
	w->wanted = false;
	TAILQ_REMOVE(&c->wanted, w, want);
	c->wants = !TAILQ_EMPTY(&c->wanted);
}

/* Into the topic's array, and out of it. */
static int enter(struct watch *w, struct topic *t)
{
	if (t->watches == t->cap) {
		uint32_t cap = t->cap ? t->cap * 2 : 1;
		struct watch **grown = realloc(t->watch, cap * sizeof(struct watch *));
		if (!grown)
			return -ENOMEM;
		t->watch = grown;
		t->cap = cap;
	}
	w->topic = t;
	w->at = t->watches;
	t->watch[t->watches++] = w;
	return 0;
}

/* Who moves has its place in another topic already: nothing is noted in the watch that leaves. */
static void leave(struct hub *h, struct topic *t, const struct watch *w, uint32_t at)
{
	if (t->payer == w)
		share_orphan(h, t);
	struct watch *last = t->watch[--t->watches];
	if (at == t->watches)
		return;
	t->watch[at] = last;
	last->at = at;
}

struct watch *watch_new(struct hub *h, struct client *c, struct topic *t)
{
	struct watch *w = calloc(1, sizeof *w);
	if (!w || enter(w, t) < 0) {
		free(w);
		return NULL;
	}
	w->client = c;
	TAILQ_INSERT_TAIL(&c->watches, w, link);
	c->watched++;
	c->watched_bytes += t->path_len;
	COUNT(h, subscriptions, 1);
	return w;
}

int watch_move(struct hub *h, struct watch *w, struct topic *to)
{
	struct topic *from = w->topic;
	uint32_t at = w->at;
	if (from == to)
		return 0;
	if (enter(w, to) < 0)
		return -ENOMEM;
	leave(h, from, w, at);
	topic_put(h, from);
	return 0;
}

void watch_free(struct hub *h, struct watch *w)
{
	struct topic *t = w->topic;
	struct client *c = w->client;
	want_no_more(w);
	TAILQ_REMOVE(&c->watches, w, link);
	c->watched--;
	c->watched_bytes -= t->path_len;
	COUNT(h, subscriptions, -1);
	leave(h, t, w, w->at);
	free(w);
	topic_put(h, t);
}

void watches_free(struct hub *h, struct client *c)
{
	struct watch *w;
	while ((w = TAILQ_FIRST(&c->watches)))
		watch_free(h, w);
	if (c->to_review)
		TAILQ_REMOVE(&h->topics->review, c, review);
	c->to_review = false;
}

void watches_review(struct hub *h, struct client *c)
{
	struct watch *w, *next;
	if (c->to_review)
		TAILQ_REMOVE(&h->topics->review, c, review);
	c->to_review = false;
	for (w = TAILQ_FIRST(&c->watches); w; w = next) {
		next = TAILQ_NEXT(w, link);
		watch_review(h, w);
	}
}

void watches_add(struct buf *b, const struct client *c)
{
	const struct watch *w;
	buf_adds(b, ",\"paths\":[");
	TAILQ_FOREACH (w, &c->watches, link) {
		if (w != TAILQ_FIRST(&c->watches))
			buf_addc(b, ',');
		buf_add_json_string(b, w->topic->text, w->topic->path_len);
	}
	buf_addc(b, ']');
}

/* ---- sending ------------------------------------------------------------------------- */

/* Whoever was sent a body as a stale one is to know that it holds; the other way round, nothing has
 * happened that would concern who has it. */
static bool has(const struct said *has, const struct said *said)
{
	if (has->status != said->status)
		return false;
	if (said->status != 200)
		return true;
	return (!has->stale || said->stale) && !memcmp(has->etag, said->etag, sizeof said->etag);
}

/* Bodies are put only while what waits goes at once: then nothing in the outbox is outdated by more
 * than a few of them, nothing needs to be dropped, and little is kept that nobody else shows. */
static bool has_room(const struct client *c)
{
	return !c->blocked && c->out.data_bytes < DATA_AHEAD;
}

void watch_offer(struct hub *h, struct watch *w)
{
	struct topic *t = w->topic;
	struct client *c = w->client;
	if (!t->message || has(&w->has, &t->said)) {
		want_no_more(w);
	} else if (!has_room(c)) {
		want(h, w);
	} else {
		want_no_more(w);
		w->has = t->said;
		COUNT(h, bodies, t->said.status == 200);
		client_put(h, c, message_ref(t->message));
	}
}

void watch_decline(struct watch *w)
{
	want_no_more(w);
}

bool watch_offer_all(struct hub *h, struct topic *t, bool old)
{
	bool others = false;
	for (uint32_t i = 0; i < t->watches; i++) {
		struct watch *w = t->watch[i];
		if (i + 4 < t->watches)
			__builtin_prefetch(t->watch[i + 4]->client, 1);
		if (old && w->since == t->reads)
			others = true;
		else
			watch_offer(h, w);
	}
	return others;
}

void watches_pour(struct hub *h, struct client *c)
{
	struct watch *w;
	while (has_room(c) && (w = TAILQ_FIRST(&c->wanted)))
		watch_offer(h, w);
}

void watch_end_all(struct hub *h, struct topic *t, struct message *m)
{
	/* With the last of them goes the topic. */
	for (uint32_t n = t->watches; n > 0; n--) {
		struct watch *w = t->watch[n - 1];
		struct client *c = w->client;
		watch_free(h, w);
		client_put(h, c, m ? message_ref(m) : NULL);
	}
}
