#include "topics.h"

#include <errno.h>
#include <string.h>

#include "provost/catalog.h"

/* ---- states -------------------------------------------------------------------------- */

static struct topic_list *list_of(struct topics *x, const struct topic *t)
{
	switch (t->state) {
	case TOPIC_SETTLED:
		return &x->settled;
	case TOPIC_HELD:
		return &x->held;
	case TOPIC_IN_LINE:
		return &x->line[t->line];
	default:
		return &x->reading;
	}
}

/* The one place of transition. `at_ms`: when it is to be looked at, whatever happens; UINT64_MAX:
 * not because of the time. */
static void move(struct hub *h, struct topic *t, enum topic_state to, uint64_t at_ms)
{
	struct topics *x = h->topics;
	TAILQ_REMOVE(list_of(x, t), t, link);
	COUNT(h, waiting, -(t->state == TOPIC_IN_LINE) + (to == TOPIC_IN_LINE));
	COUNT(h, reading, -(t->state == TOPIC_READING) + (to == TOPIC_READING));
	t->state = to;
	t->line = t->urgent ? LIVE_FIRST : LIVE_REFRESH;
	TAILQ_INSERT_TAIL(list_of(x, t), t, link);
	if (at_ms == UINT64_MAX)
		wheel_disarm(&x->wheel, &t->timer);
	else
		wheel_arm(&x->wheel, &t->timer, at_ms);
}

static void line_up(struct hub *h, struct topic *t)
{
	move(h, t, TOPIC_IN_LINE, UINT64_MAX);
}

static void hold(struct hub *h, struct topic *t, uint64_t until_ms)
{
	move(h, t, TOPIC_HELD, until_ms);
}

/* What it says may hold no longer. */
static void refresh(struct hub *h, struct topic *t)
{
	if (h->now_ms < t->next_ms)
		hold(h, t, t->next_ms);
	else
		line_up(h, t);
}

void topic_hasten(struct hub *h, struct topic *t)
{
	if (t->state == TOPIC_READING || (t->state == TOPIC_IN_LINE && t->urgent))
		return;
	t->urgent = true;
	line_up(h, t);
}

bool topic_is_current(const struct hub *h, const struct topic *t)
{
	bool expired = t->timer.at_ms && t->timer.at_ms <= h->now_ms;
	return t->state == TOPIC_SETTLED && t->message && !expired &&
	       !live_is_old(h->topics->live, t->slot, t->slots, t->start);
}

/* ---- life ---------------------------------------------------------------------------- */

/* Path, NUL, key. False: out of memory. */
static bool name(struct buf *b, const char *text, size_t n, const struct live_path *p)
{
	b->len = 0;
	b->failed = false;
	buf_add(b, text, n);
	buf_addc(b, '\0');
	buf_add(b, p->key.data, p->key.len);
	return !b->failed;
}

static struct topic *make(struct hub *h, const char *text, size_t n, struct live_path *p)
{
	struct topics *x = h->topics;
	struct topic *t = calloc(1, sizeof *t + x->name.len);
	if (!t)
		return NULL;
	_Static_assert(offsetof(struct topic, node) == 0, "a node is its topic");
	memcpy(t->text, x->name.data, x->name.len);
	t->path_len = (uint32_t)n;
	(void)text;
	t->path = *p;
	*p = (struct live_path){0};
	t->state = TOPIC_SETTLED;
	TAILQ_INSERT_TAIL(&x->settled, t, link);
	names_add(&x->by_name, &t->node, t->text, x->name.len);
	COUNT(h, paths, 1);
	return t;
}

/* The same path, of a catalogue that took the place of the former: the same statement, or else its
 * key would be another, but perhaps of other tables. */
static void renew(struct hub *h, struct topic *t, struct live_path *p)
{
	if (t->path.catalog == p->catalog)
		return;
	live_path_done(&t->path);
	t->path = *p;
	*p = (struct live_path){0};
	if (t->state == TOPIC_READING)
		t->again = true;
	else if (t->state == TOPIC_SETTLED)
		refresh(h, t);
}

int topic_get(struct hub *h, const char *text, size_t n, struct live_path *p, struct topic **ret)
{
	struct topics *x = h->topics;
	int r = name(&x->name, text, n, p) ? 0 : -ENOMEM;
	struct topic *t = NULL;
	if (r == 0) {
		t = (struct topic *)names_find(&x->by_name, x->name.data, x->name.len);
		if (t)
			renew(h, t, p);
		else if (x->by_name.count >= HUB_PATHS_MAX || x->bytes >= HUB_BODIES_MAX)
			r = -EBUSY;
		else if (!(t = make(h, text, n, p)))
			r = -ENOMEM;
	}
	live_path_done(p);
	*ret = t;
	return r;
}

static void set_message(struct hub *h, struct topic *t, struct message *m)
{
	struct topics *x = h->topics;
	x->bytes -= t->message ? t->message->size : 0;
	x->bytes += m ? m->size : 0;
	if (t->message)
		message_unref(t->message);
	t->message = m;
	atomic_store_explicit(&h->figures.body_bytes, x->bytes, memory_order_relaxed);
}

void topic_put(struct hub *h, struct topic *t)
{
	struct topics *x = h->topics;
	if (t->watches > 0)
		return;
	move(h, t, TOPIC_SETTLED, UINT64_MAX);
	TAILQ_REMOVE(&x->settled, t, link);
	/* What is in flight ends by itself, for nobody. */
	if (t->read)
		t->read->topic = NULL;
	names_remove(&x->by_name, &t->node);
	COUNT(h, paths, -1);
	set_message(h, t, NULL);
	live_path_done(&t->path);
	free(t->watch);
	free(t->slot);
	free(t);
}

struct topics *topics_new(struct live *l)
{
	struct topics *x = xcalloc(1, sizeof *x);
	x->live = l;
	names_init(&x->by_name);
	TAILQ_INIT(&x->settled);
	TAILQ_INIT(&x->held);
	TAILQ_INIT(&x->reading);
	TAILQ_INIT(&x->line[LIVE_FIRST]);
	TAILQ_INIT(&x->line[LIVE_REFRESH]);
	TAILQ_INIT(&x->review);
	STAILQ_INIT(&x->ended);
	wheel_init(&x->wheel, clock_ms());
	return x;
}

void topics_free(struct topics **xp)
{
	struct topics *x = *xp;
	struct read *r;
	*xp = NULL;
	while ((r = STAILQ_FIRST(&x->ended))) {
		STAILQ_REMOVE_HEAD(&x->ended, link);
		x->in_flight[r->urgency]--;
		live_read_done(&r->live);
		free(r);
	}
	ALWAYS(x->in_flight[LIVE_FIRST] == 0 && x->in_flight[LIVE_REFRESH] == 0);
	names_done(&x->by_name);
	buf_done(&x->name);
	free(x);
}

/* ---- reading: to the end ------------------------------------------------------------- */

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
	hold(h, t, h->now_ms + t->pause_ms);
}

/* Nobody can be told any more. */
static void end_topic(struct hub *h, struct topic *t, unsigned status, const char *detail)
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
	set_message(h, t, m);
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
	/* Who came while it was read may have been told before it came that this is over. */
	t->urgent = watch_offer_all(h, t, old);
	if (t->urgent)
		line_up(h, t);
	else if (old)
		refresh(h, t);
	else
		move(h, t, TOPIC_SETTLED, end_of_ttl(h, t, l));
}

static void take_answer(struct hub *h, struct topic *t, const struct live_read *l)
{
	bool again = t->again, failed = (l->status != 200 && l->status != 404) || l->stale;
	t->read = NULL;
	t->again = false;
	COUNT(h, failed_reads, failed);
	if (l->status == 413) {
		end_topic(h, t, 413, l->detail);
		return;
	}
	failed |= say(h, t, l) < 0;
	if (h->topics->bytes > HUB_BODIES_MAX) {
		end_topic(h, t, 503, "What is watched takes more room than there is.");
	} else if (failed) {
		(void)watch_offer_all(h, t, false);
		put_off(h, t);
	} else {
		settle(h, t, l, again);
	}
}

static void take_ended(struct hub *h)
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

/* ---- reading: from the line ---------------------------------------------------------- */

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
		t->next_ms = h->now_ms + (uint64_t)h->options.refresh_interval_ms;
		COUNT(h, refreshes, 1);
	} else {
		COUNT(h, first_reads, 1);
	}
	move(h, t, TOPIC_READING, UINT64_MAX);
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

/* ---- when ---------------------------------------------------------------------------- */

void hub_raised(struct hub *h)
{
	/* Relaxed: a path that is just being watched is looked at when it has been read, and every
	 * refresh_interval. */
	if (atomic_load_explicit(&h->figures.paths, memory_order_relaxed) == 0)
		return;
	pthread_mutex_lock(&h->lock);
	if (!h->topics->raised && h->running)
		hub_wake(h);
	h->topics->raised = true;
	pthread_mutex_unlock(&h->lock);
}

void topics_raised(struct hub *h)
{
	struct topics *x = h->topics;
	if (x->by_name.count == 0)
		return;
	if (!x->sweep_us)
		x->sweep_last_us = h->now_us + SETTLE_MAX_US;
	x->sweep_us = MIN(h->now_us + SETTLE_US, x->sweep_last_us);
}

static void look_at_settled(struct hub *h)
{
	struct topics *x = h->topics;
	struct topic *t, *next;
	for (t = TAILQ_FIRST(&x->settled); t; t = next) {
		next = TAILQ_NEXT(t, link);
		if (next)
			__builtin_prefetch(TAILQ_NEXT(next, link));
		if (live_is_old(x->live, t->slot, t->slots, t->start))
			refresh(h, t);
	}
}

/* What failed is tried at once when the stream is back, which raises everything; and soon when
 * something of what it was last read from has changed. */
static void look_at_failed(struct hub *h)
{
	struct topics *x = h->topics;
	struct topic *t, *next;
	for (t = TAILQ_FIRST(&x->held); t; t = next) {
		next = TAILQ_NEXT(t, link);
		if (!t->pause_ms)
			continue;
		if (live_is_old(x->live, NULL, 0, t->tried))
			line_up(h, t);
		else if (live_is_old(x->live, t->slot, t->slots, t->tried))
			hold(h, t, MAX(h->now_ms, t->tried_ms + RETRY_MIN_MS));
	}
}

static void sweep(struct hub *h)
{
	struct topics *x = h->topics;
	x->sweep_us = 0;
	x->raises = live_raises(x->live);
	look_at_settled(h);
	look_at_failed(h);
	uint64_t end = clock_us(), took = end - MIN(end, h->now_us);
	x->rest_us = end + took * (SWEEP_SHARE - 1);
	COUNT(h, sweeps, 1);
	atomic_store_explicit(&h->figures.sweep_us, took, memory_order_relaxed);
	if (took > atomic_load_explicit(&h->figures.sweep_us_max, memory_order_relaxed))
		atomic_store_explicit(&h->figures.sweep_us_max, took, memory_order_relaxed);
}

static void timer_due(void *arg, struct timer *timer)
{
	struct topic *t = (struct topic *)((char *)timer - offsetof(struct topic, timer));
	struct hub *h = arg;
	if (t->state == TOPIC_SETTLED)
		refresh(h, t);
	else if (t->state == TOPIC_HELD)
		line_up(h, t);
}

/* One whose catalogue was replaced, or whose tables do not tell any more, is looked at for each who
 * watches it. */
static void review_topic(void *arg, struct names_node *node)
{
	struct hub *h = arg;
	const struct topic *t = (const struct topic *)node;
	if (live_path_is_current(h->topics->live, &t->path))
		return;
	for (uint32_t i = 0; i < t->watches; i++) {
		struct client *c = t->watch[i]->client;
		if (!c->to_review)
			TAILQ_INSERT_TAIL(&h->topics->review, c, review);
		c->to_review = true;
	}
}

static void review_some(struct hub *h)
{
	struct topics *x = h->topics;
	struct client *c;
	for (uint32_t n = 0; n < REVIEWS_PER_TURN && (c = TAILQ_FIRST(&x->review));) {
		n += c->watched;
		watches_review(h, c);
	}
}

/* What nobody tells of: raises by hand and by writes that were not heard of, another catalogue. */
static void look(struct hub *h)
{
	struct topics *x = h->topics;
	x->looked_ms = h->now_ms;
	if (live_raises(x->live) != x->raises && !x->sweep_us)
		topics_raised(h);
	if (TAILQ_EMPTY(&x->review))
		names_each(&x->by_name, review_topic, h);
}

static uint64_t look_due_us(const struct hub *h)
{
	return (h->topics->looked_ms + (uint64_t)h->options.refresh_interval_ms) * 1000;
}

void topics_turn(struct hub *h)
{
	struct topics *x = h->topics;
	take_ended(h);
	if (x->by_name.count == 0)
		return;
	wheel_advance(&x->wheel, h->now_ms, timer_due, h);
	if (h->now_us >= look_due_us(h))
		look(h);
	if (x->sweep_us && h->now_us >= MAX(x->sweep_us, x->rest_us))
		sweep(h);
	review_some(h);
	begin_some(h, LIVE_FIRST, READS_FIRST_MAX);
	begin_some(h, LIVE_REFRESH, READS_REFRESH_MAX);
}

static uint64_t until(const struct hub *h, uint64_t at_us)
{
	return at_us > h->now_us ? at_us - h->now_us : 0;
}

uint64_t topics_wait_us(const struct hub *h)
{
	const struct topics *x = h->topics;
	uint64_t us = UINT64_MAX;
	if (x->by_name.count == 0)
		return us;
	if (!TAILQ_EMPTY(&x->review))
		return 0;
	us = until(h, look_due_us(h));
	if (x->wheel.armed > 0)
		us = MIN(us, (uint64_t)WHEEL_STEP_MS * 1000);
	if (x->sweep_us)
		us = MIN(us, until(h, MAX(x->sweep_us, x->rest_us)));
	for (unsigned i = 0; i < ELEMENTSOF(x->line); i++)
		if (!TAILQ_EMPTY(&x->line[i]) && x->crowded_ms[i] > h->now_ms)
			us = MIN(us, until(h, x->crowded_ms[i] * 1000));
	return us;
}
