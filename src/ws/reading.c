#include <errno.h>
#include <string.h>

#include "topics.h"

/* ---- to the end ---------------------------------------------------------------------- */

/* Any thread. */
static void read_done(struct live_read *live)
{
	struct read *r = (struct read *)((char *)live - offsetof(struct read, live));
	struct hub *h = r->hub;
	struct topics *x = h->topics;
	pthread_mutex_lock(&h->lock);
	bool first = STAILQ_EMPTY(&x->ended);
	STAILQ_INSERT_TAIL(&x->ended, r, link);
	if (first && h->running)
		hub_wake(h);
	pthread_mutex_unlock(&h->lock);
}

/* It failed, or what it says is old by necessity: it is tried again, later and later. */
static void put_off(struct hub *h, struct topic *t)
{
	t->pause_ms = t->pause_ms ? MIN(t->pause_ms * 2, (uint64_t)RETRY_MAX_MS) : RETRY_MIN_MS;
	topic_hold(h, t, h->now_ms + t->pause_ms);
}

void topic_end(struct hub *h, struct topic *t, unsigned status, const char *detail)
{
	struct message *m = path_error(h, t->text, t->path_len, status, detail, false);
	watch_end_all(h, t, m);
	if (m)
		message_unref(m);
}

static bool is_same(const struct said *a, const struct said *b)
{
	return a->status == b->status && a->stale == b->stale &&
	       !memcmp(a->etag, b->etag, sizeof a->etag);
}

/* -ENOMEM: it goes on saying what it said. */
static int say(struct hub *h, struct topic *t, const struct live_read *l)
{
	struct said said = {.status = l->status};
	if (l->status == 200) {
		said.stale = l->stale;
		memcpy(said.etag, l->etag, sizeof said.etag);
	}
	if (t->message && is_same(&said, &t->said)) {
		COUNT(h, unchanged, 1);
		return 0;
	}
	struct message *m = l->status == 200
	                        ? data_message(h, t, l)
	                        : path_error(h, t->text, t->path_len, l->status, l->detail, true);
	if (!m)
		return -ENOMEM;
	t->said = said;
	topic_set_message(h, t, m);
	return 0;
}

/* What cannot be noted is taken for changed by the next sweep. */
static void note_source(struct topic *t, const struct live_read *l)
{
	gen_slot *slot = realloc(t->slot, MAX(l->slots, (size_t)1) * sizeof *slot);
	t->slots = 0;
	t->start = 0;
	if (!slot)
		return;
	if (l->slots)
		memcpy(slot, l->slot, l->slots * sizeof *slot);
	t->slot = slot;
	t->slots = l->slots;
	t->start = l->start;
}

static uint64_t end_of_ttl(const struct hub *h, const struct topic *t, const struct live_read *l)
{
	int64_t ttl_ms = live_path_ttl_ms(&t->path);
	if (ttl_ms == 0)
		return UINT64_MAX;
	return MAX(l->started_ms + (uint64_t)ttl_ms,
	           h->now_ms + (uint64_t)h->options.refresh_interval_ms);
}

/* What it was found to be holds, or was overtaken meanwhile. */
static void settle(struct hub *h, struct topic *t, const struct live_read *l, bool again)
{
	t->pause_ms = 0;
	note_source(t, l);
	bool old = again || live_is_old(h->topics->live, t->slot, t->slots, t->start);
	bool fresh = !old && live_is_fresh(h->topics->live, t->slot, t->slots, t->start);
	/* Who came while it was read may have been told before it came that this is over. */
	t->urgent = watch_offer_all(h, t, !fresh);
	if (t->urgent)
		topic_line_up(h, t);
	else if (old)
		topic_refresh(h, t);
	else
		topic_move(h, t, TOPIC_SETTLED, end_of_ttl(h, t, l));
}

static void take_answer(struct hub *h, struct topic *t, const struct live_read *l)
{
	bool again = t->again, failed = (l->status != 200 && l->status != 404) || l->stale;
	t->read = NULL;
	t->again = false;
	COUNT(h, failed_reads, failed);
	if (l->status == 413) {
		topic_end(h, t, 413, l->detail);
		return;
	}
	failed |= say(h, t, l) < 0;
	if (h->topics->bytes > HUB_BODIES_MAX) {
		topic_end(h, t, 503, "What is watched takes more room than there is.");
	} else if (!share_take(t)) {
		share_end(h, t);
	} else if (failed) {
		(void)watch_offer_all(h, t, false);
		put_off(h, t);
	} else {
		settle(h, t, l, again);
	}
}

void topics_take_ended(struct hub *h)
{
	struct topics *x = h->topics;
	struct read_list ended;
	struct read *r;
	STAILQ_INIT(&ended);
	pthread_mutex_lock(&h->lock);
	STAILQ_CONCAT(&ended, &x->ended);
	bool raised = x->raised;
	x->raised = false;
	pthread_mutex_unlock(&h->lock);
	if (raised)
		topics_raised(h);
	while ((r = STAILQ_FIRST(&ended))) {
		STAILQ_REMOVE_HEAD(&ended, link);
		x->in_flight[r->urgency]--;
		if (r->topic)
			take_answer(h, r->topic, &r->live);
		live_read_done(&r->live);
		free(r);
	}
}

/* ---- from the line ------------------------------------------------------------------- */

static int begin(struct hub *h, struct topic *t)
{
	struct topics *x = h->topics;
	enum live_urgency urgency = t->line;
	struct read *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	*r = (struct read){.hub = h, .topic = t, .urgency = urgency, .live.done = read_done};
	t->tried = live_raises(x->live);
	t->tried_ms = h->now_ms;
	/* It may have ended when this returns, and is not heard of before the next turn. */
	int e = live_read(x->live, &t->path, urgency, &r->live);
	if (e < 0) {
		free(r);
		return e;
	}
	x->in_flight[urgency]++;
	t->read = r;
	t->reads++;
	t->urgent = false;
	if (urgency == LIVE_REFRESH) {
		t->refreshed_ms = h->now_ms;
		COUNT(h, refreshes, 1);
	} else {
		COUNT(h, first_reads, 1);
	}
	topic_move(h, t, TOPIC_READING, UINT64_MAX);
	return 0;
}

static void fail(struct hub *h, struct topic *t)
{
	const struct live_read none = {.status = 503,
	                               .detail = "The server is out of memory. Try again."};
	t->urgent = false;
	take_answer(h, t, &none);
}

static void begin_some(struct hub *h, enum live_urgency line, unsigned most)
{
	struct topics *x = h->topics;
	struct topic *t;
	while (x->in_flight[line] < most && h->now_ms >= x->crowded_ms[line] &&
	       (t = TAILQ_FIRST(&x->line[line]))) {
		int r = begin(h, t);
		if (r == -EAGAIN || r == -ESHUTDOWN)
			x->crowded_ms[line] = h->now_ms + CROWDED_MS;
		else if (r < 0)
			fail(h, t);
	}
}

void topics_begin(struct hub *h)
{
	begin_some(h, LIVE_FIRST, READS_FIRST_MAX);
	begin_some(h, LIVE_REFRESH, READS_REFRESH_MAX);
}
