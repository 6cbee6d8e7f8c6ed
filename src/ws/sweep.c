#include "topics.h"

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
			topic_refresh(h, t);
	}
}

void topics_configured(struct hub *h)
{
	struct topic *t, *next;
	for (t = TAILQ_FIRST(&h->topics->held); t; t = next) {
		next = TAILQ_NEXT(t, link);
		if (!t->pause_ms)
			topic_refresh(h, t);
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
		uint64_t soon_ms = t->tried_ms + RETRY_MIN_MS;
		bool changed = live_is_old(x->live, t->slot, t->slots, t->tried);
		if (live_is_old(x->live, NULL, 0, t->tried) || (changed && soon_ms <= h->now_ms))
			topic_line_up(h, t);
		else if (changed)
			topic_hold(h, t, soon_ms);
	}
}

/* What was begun then, and has just ended, has had its share of the hub's time until then. */
static uint64_t rest_until(uint64_t begun_us)
{
	uint64_t now_us = clock_us();
	return now_us + (now_us - begun_us) * (SWEEP_SHARE - 1);
}

static void sweep(struct hub *h)
{
	struct topics *x = h->topics;
	uint64_t begun = clock_us();
	x->sweep_us = 0;
	x->raises = live_raises(x->live);
	look_at_settled(h);
	look_at_failed(h);
	uint64_t took = clock_us() - begun;
	x->rest_us = rest_until(begun);
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
		topic_refresh(h, t);
	else if (t->state == TOPIC_HELD)
		topic_line_up(h, t);
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

static bool keeps_passed(const struct client *c)
{
	for (uint32_t i = 0; i < c->out.count; i++)
		if (outbox_at(&c->out, i)->passed)
			return true;
	return false;
}

/* Those who keep what is of no use to anybody else, and take too little of it. */
static void relieve(struct hub *h)
{
	struct client *c;
	TAILQ_FOREACH (c, &h->clients, link) {
		if (!client_is_open(c) || !c->blocked || !keeps_passed(c))
			continue;
		COUNT(h, stalls, 1);
		client_close(h, c, WS_CODE_STALLED, "what is watched is taken too slowly");
	}
}

/* What nobody tells of: raises by hand and by writes that were not heard of, another catalogue. */
static void look(struct hub *h)
{
	struct topics *x = h->topics;
	uint64_t begun = clock_us();
	x->looked_ms = h->now_ms;
	if (live_raises(x->live) != x->raises && !x->sweep_us)
		topics_raised(h);
	if (TAILQ_EMPTY(&x->review))
		names_each(&x->by_name, review_topic, h);
	if (topics_forget_passed(h))
		relieve(h);
	x->look_rest_us = rest_until(begun);
}

static uint64_t look_due_us(const struct hub *h)
{
	int64_t interval_ms = MIN(h->options.refresh_interval_ms, (int64_t)LOOK_MS);
	return MAX((h->topics->looked_ms + (uint64_t)interval_ms) * 1000, h->topics->look_rest_us);
}

static bool is_idle(const struct topics *x)
{
	return x->by_name.count == 0 && x->passed_count == 0;
}

void topics_turn(struct hub *h)
{
	struct topics *x = h->topics;
	topics_take_ended(h);
	if (is_idle(x))
		return;
	wheel_advance(&x->wheel, h->now_ms, timer_due, h);
	if (h->now_us >= look_due_us(h))
		look(h);
	if (x->sweep_us && h->now_us >= MAX(x->sweep_us, x->rest_us))
		sweep(h);
	review_some(h);
	share_place_orphans(h);
	topics_begin(h);
}

static uint64_t until(const struct hub *h, uint64_t at_us)
{
	return at_us > h->now_us ? at_us - h->now_us : 0;
}

uint64_t topics_wait_us(const struct hub *h)
{
	const struct topics *x = h->topics;
	uint64_t us = UINT64_MAX;
	if (is_idle(x))
		return us;
	if (!TAILQ_EMPTY(&x->review) || !TAILQ_EMPTY(&x->orphans))
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
