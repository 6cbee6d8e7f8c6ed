#include "topics.h"

#include <errno.h>
#include <string.h>

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

void topic_move(struct hub *h, struct topic *t, enum topic_state to, uint64_t at_ms)
{
	struct topics *x = h->topics;
	/* Put off once more, it keeps its place: lists are walked over by who does that. */
	bool stays = t->state == TOPIC_HELD && to == TOPIC_HELD;
	if (!stays)
		TAILQ_REMOVE(list_of(x, t), t, link);
	COUNT(h, waiting, -(t->state == TOPIC_IN_LINE) + (to == TOPIC_IN_LINE));
	COUNT(h, reading, -(t->state == TOPIC_READING) + (to == TOPIC_READING));
	t->state = to;
	t->line = t->urgent ? LIVE_FIRST : LIVE_REFRESH;
	if (!stays)
		TAILQ_INSERT_TAIL(list_of(x, t), t, link);
	if (at_ms == UINT64_MAX)
		wheel_disarm(&x->wheel, &t->timer);
	else
		wheel_arm(&x->wheel, &t->timer, at_ms);
}

void topic_line_up(struct hub *h, struct topic *t)
{
	topic_move(h, t, TOPIC_IN_LINE, UINT64_MAX);
}

void topic_hold(struct hub *h, struct topic *t, uint64_t until_ms)
{
	topic_move(h, t, TOPIC_HELD, until_ms);
}

void topic_refresh(struct hub *h, struct topic *t)
{
	uint64_t at = t->refreshed_ms + (uint64_t)h->options.refresh_interval_ms;
	if (t->refreshed_ms && h->now_ms < at)
		topic_hold(h, t, at);
	else
		topic_line_up(h, t);
}

void topic_hasten(struct hub *h, struct topic *t)
{
	if (t->state == TOPIC_READING || (t->state == TOPIC_IN_LINE && t->urgent))
		return;
	t->urgent = true;
	topic_line_up(h, t);
}

bool topic_is_current(const struct hub *h, const struct topic *t)
{
	bool expired = t->timer.at_ms && t->timer.at_ms <= h->now_ms;
	return t->state == TOPIC_SETTLED && t->message && !expired &&
	       live_is_fresh(h->topics->live, t->slot, t->slots, t->start);
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
		topic_refresh(h, t);
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

bool topics_forget_passed(struct hub *h)
{
	struct topics *x = h->topics;
	size_t kept = 0;
	for (size_t i = 0; i < x->passed_count; i++) {
		struct message *m = x->passed[i];
		if (m->refs > 1) {
			x->passed[kept++] = m;
			continue;
		}
		x->passed_bytes -= m->size;
		message_unref(m);
	}
	x->passed_count = kept;
	atomic_store_explicit(&h->figures.passed_bytes, x->passed_bytes, memory_order_relaxed);
	return x->passed_bytes > PASSED_MAX;
}

static bool has_room_for_passed(struct hub *h)
{
	struct topics *x = h->topics;
	if (x->passed_count == x->passed_cap)
		(void)topics_forget_passed(h);
	if (x->passed_count < x->passed_cap)
		return true;
	size_t cap = MAX(x->passed_cap * 2, (size_t)64);
	struct message **grown = realloc(x->passed, cap * sizeof(struct message *));
	if (!grown)
		return false;
	x->passed = grown;
	x->passed_cap = cap;
	return true;
}

/* Takes the reference over. Without memory it is not counted, that is all. */
static void pass(struct hub *h, struct message *m)
{
	struct topics *x = h->topics;
	if (m->refs == 1 || !has_room_for_passed(h)) {
		message_unref(m);
		return;
	}
	m->passed = true;
	x->passed[x->passed_count++] = m;
	x->passed_bytes += m->size;
	atomic_store_explicit(&h->figures.passed_bytes, x->passed_bytes, memory_order_relaxed);
}

void topic_set_message(struct hub *h, struct topic *t, struct message *m)
{
	struct topics *x = h->topics;
	share_resize(t, m);
	x->bytes -= t->message ? t->message->size : 0;
	x->bytes += m ? m->size : 0;
	if (t->message)
		pass(h, t->message);
	t->message = m;
	atomic_store_explicit(&h->figures.body_bytes, x->bytes, memory_order_relaxed);
}

void topic_put(struct hub *h, struct topic *t)
{
	struct topics *x = h->topics;
	if (t->watches > 0)
		return;
	share_forget(h, t);
	topic_move(h, t, TOPIC_SETTLED, UINT64_MAX);
	TAILQ_REMOVE(&x->settled, t, link);
	/* What is in flight ends by itself, for nobody. */
	if (t->read)
		t->read->topic = NULL;
	names_remove(&x->by_name, &t->node);
	COUNT(h, paths, -1);
	topic_set_message(h, t, NULL);
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
	TAILQ_INIT(&x->orphans);
	TAILQ_INIT(&x->review);
	STAILQ_INIT(&x->ended);
	wheel_init(&x->wheel, clock_ms());
	return x;
}

void topics_free(struct hub *h)
{
	struct topics *x = h->topics;
	struct read *r;
	while ((r = STAILQ_FIRST(&x->ended))) {
		STAILQ_REMOVE_HEAD(&x->ended, link);
		x->in_flight[r->urgency]--;
		live_read_done(&r->live);
		free(r);
	}
	ALWAYS(x->in_flight[LIVE_FIRST] == 0 && x->in_flight[LIVE_REFRESH] == 0);
	(void)topics_forget_passed(h);
	ALWAYS(x->passed_count == 0);
	free(x->passed);
	names_done(&x->by_name);
	buf_done(&x->name);
	free(x);
	h->topics = NULL;
}
