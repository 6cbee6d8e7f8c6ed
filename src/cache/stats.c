#include <string.h>

#include "internal.h"

/* Entries with their hits; references are held. Of the whole: most hits first. */
struct ranking {
	struct entry *entry[CACHE_TOP];
	uint64_t hits[CACHE_TOP];
	unsigned count;
};

/* Takes the reference over. */
static void rank(struct ranking *r, struct entry *e, uint64_t hits)
{
	unsigned at = r->count;

	while (at > 0 && r->hits[at - 1] < hits)
		at--;
	if (at == CACHE_TOP) {
		entry_unref(&e);
		return;
	}
	if (r->count == CACHE_TOP)
		entry_unref(&r->entry[--r->count]);
	for (unsigned i = r->count++; i > at; i--) {
		r->entry[i] = r->entry[i - 1];
		r->hits[i] = r->hits[i - 1];
	}
	r->entry[at] = e;
	r->hits[at] = hits;
}

static void add_locked(struct cache_stats *to, const struct shard *s)
{
	to->entries += s->bodies.count + s->absences.count;
	to->absences += s->absences.count;
	to->bytes += (uint64_t)shard_bytes_locked(s);
	to->hits += s->hits;
	to->swr += s->n.swr;
	to->max_stale += s->n.max_stale;
	to->misses += s->misses;
	to->stale_if_error += s->n.stale_if_error;
	to->stores += s->n.stores;
	to->evictions += s->n.evictions;
	to->expirations += s->n.expirations;
	to->invalidations += s->n.invalidations;
	to->refused += s->n.refused;
	to->outdated += s->n.outdated;
	to->max_entry = s->rules.max_entry;
	to->negative_ttl_ms = s->rules.negative_ttl_ms;
}

static void add(struct cache_stats *to, struct ranking *r, struct shard *s)
{
	struct ranking own = {.count = 0};

	pthread_mutex_lock(&s->lock);
	add_locked(to, s);
	for (; own.count < s->top.count; own.count++) {
		struct entry *e = s->top.entry[own.count];

		entry_ref(e);
		own.entry[own.count] = e;
		own.hits[own.count] = e->hits;
	}
	pthread_mutex_unlock(&s->lock);
	/* After the lock: whoever loses its place may be freed. */
	for (unsigned i = 0; i < own.count; i++)
		rank(r, own.entry[i], own.hits[i]);
}

/* Keys may be long: they are copied under no lock. */
static void name_top(struct ranking *r, struct cache_stats *to)
{
	for (unsigned i = 0; i < r->count; i++) {
		struct entry *e = r->entry[i];
		char *key = malloc(e->key_len + 1u);

		if (key) {
			memcpy(key, entry_key(e), e->key_len);
			key[e->key_len] = '\0';
			to->top[i] = (struct cache_top){
			    .key = key, .key_len = e->key_len, .hits = r->hits[i]};
		}
		entry_unref(&r->entry[i]);
	}
}

void cache_stats(struct cache *c, struct cache_stats *ret)
{
	struct cache_stats sum = {.shards = c->shards};
	struct ranking r = {.count = 0};

	CHECK_MAGIC(c, CACHE_MAGIC);
	sum.capacity = atomic_load_explicit(&c->capacity, memory_order_relaxed);
	sum.refused = atomic_load_explicit(&c->refused, memory_order_relaxed);
	for (unsigned i = 0; i < c->shards; i++)
		add(&sum, &r, &c->shard[i]);
	name_top(&r, &sum);
	*ret = sum;
}

void cache_stats_done(struct cache_stats *s)
{
	for (size_t i = 0; i < CACHE_TOP; i++) {
		free(s->top[i].key);
		s->top[i] = (struct cache_top){0};
	}
}
