#include "shard.h"

void shard_init(struct shard *s)
{
	pthread_mutexattr_t attr;
	struct entry **bucket = table_buckets(TABLE_MIN);

	if (!bucket) {
		fputs("provost: out of memory\n", stderr);
		exit(EXIT_FAILURE);
	}
	*s = (struct shard){0};
	/* It is held for less than what going to sleep costs. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&s->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	table_init(&s->table, bucket);
}

void shard_done(struct shard *s)
{
	struct detached d = {0};

	while (recency_victim(&s->bodies))
		shard_unlink_locked(s, recency_victim(&s->bodies), &d);
	while (recency_victim(&s->absences))
		shard_unlink_locked(s, recency_victim(&s->absences), &d);
	ALWAYS(s->bodies.count == 0 && s->absences.count == 0 && s->top.count == 0);
	ALWAYS(s->bytes == 0 && s->absence_bytes == 0);
	d.buckets = table_done(&s->table);
	detached_free(&d);
	pthread_mutex_destroy(&s->lock);
}

void detached_free(struct detached *d)
{
	struct entry *e = d->entries, *next;

	for (; e; e = next) {
		next = e->next;
		entry_unref(&e);
	}
	free(d->buckets);
	*d = (struct detached){0};
}

/* ---- what is in it ------------------------------------------------------------------- */

static struct recency *list_of(struct shard *s, const struct entry *e)
{
	return e->kind == ENTRY_ABSENCE ? &s->absences : &s->bodies;
}

static void charge(struct shard *s, const struct entry *e, int64_t bytes)
{
	s->bytes += bytes;
	if (e->kind == ENTRY_ABSENCE)
		s->absence_bytes += bytes;
	ALWAYS(s->bytes >= s->absence_bytes && s->absence_bytes >= 0);
}

void shard_link_locked(struct shard *s, struct entry *e)
{
	ALWAYS(!(e->flags & FLAG_PUT));
	e->flags |= FLAG_PUT | FLAG_LINKED;
	table_insert(&s->table, e);
	recency_insert(list_of(s, e), e);
	charge(s, e, entry_charge(e));
	if (e->hits)
		top_hit(&s->top, e);
}

void shard_unlink_locked(struct shard *s, struct entry *e, struct detached *d)
{
	ALWAYS(e->flags & FLAG_LINKED);
	e->flags &= (uint8_t)~FLAG_LINKED;
	top_remove(&s->top, e);
	recency_remove(list_of(s, e), e);
	table_remove(&s->table, e);
	charge(s, e, -entry_charge(e));
	e->next = d->entries;
	d->entries = e;
}

void shard_replace_locked(struct shard *s, struct entry *e, struct entry *by, struct detached *d)
{
	by->hits = e->hits;
	shard_unlink_locked(s, e, d);
	shard_link_locked(s, by);
}

void shard_hit_locked(struct shard *s, struct entry *e)
{
	e->hits++;
	top_hit(&s->top, e);
	recency_hit(list_of(s, e), e);
}

void shard_grown_locked(struct shard *s, const struct entry *e, int64_t bytes)
{
	charge(s, e, bytes);
}

/* ---- its bounds ---------------------------------------------------------------------- */

int64_t shard_bytes_locked(const struct shard *s)
{
	return s->bytes + s->table.bytes + s->table.old_bytes;
}

static int64_t absence_share(const struct shard *s)
{
	return s->rules.share / ABSENCE_SHARE;
}

bool shard_may_store_locked(const struct shard *s, const struct entry *e, int64_t n)
{
	if (n > s->rules.max_entry || n > s->rules.share / ENTRY_SHARE)
		return false;
	return e->kind == ENTRY_BODY || n <= absence_share(s);
}

/* The one to evict, or NULL when everything is within its bounds. An array that is on its way out
 * does not count: no eviction would make it smaller. */
static struct entry *victim_locked(const struct shard *s)
{
	struct entry *e;

	if (s->absence_bytes > absence_share(s))
		return recency_victim(&s->absences);
	if (s->bytes + table_bytes_due(&s->table) <= s->rules.share)
		return NULL;
	e = recency_victim(&s->bodies);
	return e ? e : recency_victim(&s->absences);
}

static bool trim_locked(struct shard *s, size_t buckets, struct detached *d)
{
	struct entry *e = victim_locked(s);

	for (size_t i = 0; e && i < SHARD_EVICT; i++) {
		shard_unlink_locked(s, e, d);
		s->n.evictions++;
		e = victim_locked(s);
	}
	d->buckets = table_step(&s->table, buckets);
	return e || table_wanted(&s->table);
}

bool shard_trim_locked(struct shard *s, struct detached *d)
{
	return trim_locked(s, SHARD_STEP, d);
}

/* False: out of memory. The table does with what it has, and asks again. */
static bool resize(struct shard *s, size_t n)
{
	struct entry **fresh = table_buckets(n);
	bool taken;

	if (!fresh)
		return false;
	pthread_mutex_lock(&s->lock);
	taken = table_resize(&s->table, fresh, n);
	pthread_mutex_unlock(&s->lock);
	/* Another thread was quicker, or it is not needed any more. */
	if (!taken)
		free(fresh);
	return true;
}

void shard_settle(struct shard *s, bool all)
{
	bool more;

	do {
		struct detached d = {0};
		size_t wanted;

		pthread_mutex_lock(&s->lock);
		more = trim_locked(s, all ? SHARD_PIECE : SHARD_STEP, &d);
		wanted = table_wanted(&s->table);
		more = more || (all && s->table.old);
		pthread_mutex_unlock(&s->lock);
		detached_free(&d);
		if (wanted && !resize(s, wanted))
			return;
	} while (more);
}

/* ---- what is dead in it -------------------------------------------------------------- */

struct sweep {
	struct shard *shard;
	const struct generations *generations;
	uint64_t now_ms;
	struct detached detached;
};

static bool dead_locked(struct sweep *w, struct entry *e)
{
	if (w->now_ms >= e->dead_ms) {
		if (!(e->flags & FLAG_EXPIRED))
			w->shard->n.expirations++;
		return true;
	}
	if (!(e->flags & FLAG_PERISHABLE) ||
	    !generations_raised(w->generations, e->tail, e->slots, e->start))
		return false;
	if (!(e->flags & FLAG_INVALIDATED))
		w->shard->n.invalidations++;
	return true;
}

static void look_locked(struct entry *e, void *arg)
{
	struct sweep *w = arg;

	if (dead_locked(w, e))
		shard_unlink_locked(w->shard, e, &w->detached);
}

/* What is left of `range`, which is in units of table_walk. */
static uint64_t sweep_piece(struct sweep *w, uint64_t range)
{
	struct shard *s = w->shard;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < SHARD_PIECE && range > 0; i++) {
		uint32_t next = table_walk(&s->table, s->swept, look_locked, w);

		range -= MIN(range, (uint64_t)(uint32_t)(next - s->swept));
		s->swept = next;
	}
	w->detached.buckets = table_step(&s->table, SHARD_PIECE);
	pthread_mutex_unlock(&s->lock);
	detached_free(&w->detached);
	return range;
}

void shard_sweep(struct shard *s, const struct generations *g, uint64_t now_ms, unsigned visits)
{
	struct sweep w = {.shard = s, .generations = g, .now_ms = now_ms};
	uint64_t range = ((uint64_t)1 << 32) / visits;

	for (size_t i = 0; range > 0 && i < SHARD_SWEEP / SHARD_PIECE; i++)
		range = sweep_piece(&w, range);
	shard_settle(s, false);
}
