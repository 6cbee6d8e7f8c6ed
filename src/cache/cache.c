#include "provost/cache.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"
#include "provost/delay.h"
#include "verdict.h"

static void *shards_new(unsigned n)
{
	void *p = aligned_alloc(SHARD_ALIGN, n * sizeof(struct shard));

	if (!p || sodium_init() < 0) {
		fputs("provost: no memory, or no randomness, for the cache\n", stderr);
		exit(EXIT_FAILURE);
	}
	return p;
}

struct cache *cache_new(const struct cache_options *o, struct generations *g)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	ALWAYS(o->shards > 0 && o->shards <= CACHE_SHARDS_MAX);
	ALWAYS((o->shards & (o->shards - 1)) == 0);
	c->magic = CACHE_MAGIC;
	c->generations = g;
	c->shards = o->shards;
	c->shard = shards_new(o->shards);
	crypto_shorthash_keygen(c->hash_key);
	for (unsigned i = 0; i < c->shards; i++)
		shard_init(&c->shard[i]);
	cache_configure(c, o);
	return c;
}

void cache_free(struct cache **cp)
{
	struct cache *c = *cp;

	if (!c)
		return;
	CHECK_MAGIC(c, CACHE_MAGIC);
	*cp = NULL;
	for (unsigned i = 0; i < c->shards; i++)
		shard_done(&c->shard[i]);
	free(c->shard);
	c->magic = 0;
	free(c);
}

void cache_configure(struct cache *c, const struct cache_options *o)
{
	struct rules rules = {
	    .share = o->capacity / c->shards,
	    .max_entry = o->max_entry,
	    .negative_ttl_ms = o->negative_ttl_ms,
	};

	CHECK_MAGIC(c, CACHE_MAGIC);
	/* Relaxed: for the report, and for when to give memory back. */
	atomic_store_explicit(&c->capacity, o->capacity, memory_order_relaxed);
	atomic_store_explicit(&c->max_entry, MIN(rules.max_entry, rules.share / ENTRY_SHARE),
	                      memory_order_relaxed);
	for (unsigned i = 0; i < c->shards; i++) {
		struct shard *s = &c->shard[i];

		pthread_mutex_lock(&s->lock);
		s->rules = rules;
		pthread_mutex_unlock(&s->lock);
		shard_settle(s, true);
	}
}

struct cache_key cache_key(const struct cache *c, const void *bytes, size_t len)
{
	struct cache_key key = {.bytes = bytes, .len = len};

	CHECK_MAGIC(c, CACHE_MAGIC);
	_Static_assert(sizeof(key.hash) == crypto_shorthash_BYTES, "the hash is its bytes");
	crypto_shorthash((unsigned char *)&key.hash, bytes, len, c->hash_key);
	return key;
}

/* By the hash's upper half; the table goes by the lower bits. */
struct shard *cache_shard(const struct cache *c, uint64_t hash)
{
	CHECK_MAGIC(c, CACHE_MAGIC);
	return &c->shard[(hash >> 32) * c->shards >> 32];
}

/* ---- looking up ---------------------------------------------------------------------- */

static bool invalidated(const struct cache *c, const struct entry *e, uint64_t now_ms)
{
	return !generations_fresh(c->generations, e->tail, e->slots, e->start, now_ms);
}

/* For good: not just because for the moment nobody tells of changes. */
static bool outdated(const struct cache *c, const struct entry *e)
{
	return generations_raised(c->generations, e->tail, e->slots, e->start);
}

/* Counts what becomes of the entry, when it is first seen. */
static void note_locked(const struct cache *c, struct shard *s, struct entry *e, bool invalid,
                        bool expired)
{
	if (invalid && !(e->flags & FLAG_INVALIDATED) && outdated(c, e)) {
		e->flags |= FLAG_INVALIDATED;
		s->n.invalidations++;
	}
	if (expired && !(e->flags & FLAG_EXPIRED)) {
		e->flags |= FLAG_EXPIRED;
		s->n.expirations++;
	}
}

/* One caller in CACHE_REFRESH_MS, but for entries of seven weeks. */
static bool claim_refresh_locked(struct entry *e, uint64_t now_ms)
{
	uint64_t age_ms = now_ms > e->started_ms ? now_ms - e->started_ms : 0;

	if (age_ms < e->refresh_age_ms)
		return false;
	e->refresh_age_ms = (uint32_t)MIN(age_ms + CACHE_REFRESH_MS, (uint64_t)UINT32_MAX);
	return true;
}

static void count_hit_locked(struct shard *s, enum cache_state state)
{
	s->hits++;
	if (state == CACHE_SWR)
		s->n.swr++;
	else if (state == CACHE_MAX_STALE)
		s->n.max_stale++;
}

static void get_locked(struct cache *c, struct shard *s, struct entry *e, const struct freshness *f,
                       uint64_t now_ms, struct cache_found *ret)
{
	bool invalid = invalidated(c, e, now_ms);
	struct verdict v = verdict_of(e, f, s->rules.negative_ttl_ms, invalid, now_ms);

	note_locked(c, s, e, invalid, v.left_ms <= 0);
	ret->state = v.state;
	if (v.state == CACHE_MISS) {
		s->misses++;
		ret->expired = true;
		ret->stale = v.stale;
		return;
	}
	count_hit_locked(s, v.state);
	shard_hit_locked(s, e);
	entry_ref(e);
	ret->entry = e;
	ret->age_ms = v.age_ms;
	ret->ttl_ms = invalid ? 0 : v.left_ms;
	if (v.state == CACHE_SWR)
		ret->refresh = claim_refresh_locked(e, now_ms);
}

void cache_get(struct cache *c, struct cache_key key, const struct freshness *f, uint64_t now_ms,
               struct cache_found *ret)
{
	struct shard *s = cache_shard(c, key.hash);
	struct entry *e;

	*ret = (struct cache_found){.state = CACHE_MISS};
	pthread_mutex_lock(&s->lock);
	e = table_find(&s->table, key);
	if (e)
		get_locked(c, s, e, f, now_ms, ret);
	else
		s->misses++;
	pthread_mutex_unlock(&s->lock);
}

static bool get_stale_locked(struct cache *c, struct shard *s, struct entry *e,
                             const struct freshness *f, uint64_t now_ms, struct cache_found *ret)
{
	bool invalid = invalidated(c, e, now_ms);
	struct verdict v = verdict_of(e, f, s->rules.negative_ttl_ms, invalid, now_ms);

	if (!v.stale)
		return false;
	note_locked(c, s, e, invalid, v.left_ms <= 0);
	s->n.stale_if_error++;
	shard_hit_locked(s, e);
	entry_ref(e);
	*ret = (struct cache_found){
	    .state = v.state,
	    .entry = e,
	    .ttl_ms = invalid ? MIN(v.left_ms, 0) : v.left_ms,
	    .age_ms = v.age_ms,
	};
	return true;
}

bool cache_get_stale(struct cache *c, struct cache_key key, const struct freshness *f,
                     uint64_t now_ms, struct cache_found *ret)
{
	struct shard *s = cache_shard(c, key.hash);
	struct entry *e;
	bool found;

	pthread_mutex_lock(&s->lock);
	e = table_find(&s->table, key);
	found = e && get_stale_locked(c, s, e, f, now_ms, ret);
	pthread_mutex_unlock(&s->lock);
	return found;
}

struct entry *cache_peek(struct cache *c, struct cache_key key, const struct freshness *f,
                         uint64_t now_ms)
{
	struct shard *s = cache_shard(c, key.hash);
	struct verdict v;
	struct entry *e;

	pthread_mutex_lock(&s->lock);
	e = table_find(&s->table, key);
	if (e) {
		v = verdict_of(e, f, s->rules.negative_ttl_ms, invalidated(c, e, now_ms), now_ms);
		e = v.state == CACHE_FRESH ? e : NULL;
	}
	if (e)
		entry_ref(e);
	pthread_mutex_unlock(&s->lock);
	return e;
}

/* ---- storing ------------------------------------------------------------------------- */

static int may_put_locked(struct cache *c, struct shard *s, const struct entry *e,
                          const struct freshness *f, uint64_t now_ms)
{
	int64_t negative_ttl_ms = s->rules.negative_ttl_ms;
	struct verdict v;

	if (!shard_may_store_locked(s, e, entry_charge(e))) {
		s->n.refused++;
		return -E2BIG;
	}
	v = verdict_of(e, f, negative_ttl_ms, false, now_ms);
	if (v.state == CACHE_MISS && !v.stale)
		return -ECANCELED;
	if (invalidated(c, e, now_ms) &&
	    verdict_of(e, f, negative_ttl_ms, true, now_ms).state == CACHE_MISS) {
		s->n.outdated += outdated(c, e);
		return -ESTALE;
	}
	return 0;
}

bool cache_would_store(struct cache *c, size_t bytes)
{
	/* Relaxed: cache_put decides. */
	int64_t max = atomic_load_explicit(&c->max_entry, memory_order_relaxed);

	if (bytes <= (size_t)max)
		return true;
	atomic_fetch_add_explicit(&c->refused, 1, memory_order_relaxed);
	return false;
}

static bool begun_after(const struct entry *a, const struct entry *b)
{
	return a->start > b->start || (a->start == b->start && a->started_ms > b->started_ms);
}

static void put_locked(struct shard *s, struct entry *e, const struct freshness *f,
                       struct detached *d)
{
	struct cache_key key = {.hash = e->hash, .bytes = entry_key(e), .len = e->key_len};
	struct entry *old = table_find(&s->table, key);

	if (old && begun_after(old, e))
		return;
	e->dead_ms = verdict_dead_ms(e, f, s->rules.negative_ttl_ms);
	if (verdict_perishable(e, f))
		e->flags |= FLAG_PERISHABLE;
	s->n.stores++;
	entry_ref(e);
	if (old)
		shard_replace_locked(s, old, e, d);
	else
		shard_link_locked(s, e);
}

int cache_put(struct cache *c, struct entry *e, const struct freshness *f, uint64_t now_ms)
{
	struct shard *s = cache_shard(c, e->hash);
	struct detached d = {0};
	bool more = false;
	int r;

	CHECK_MAGIC(e, ENTRY_MAGIC);
	pthread_mutex_lock(&s->lock);
	r = may_put_locked(c, s, e, f, now_ms);
	if (r == 0) {
		DELAY(DELAY_PUT);
		put_locked(s, e, f, &d);
		more = shard_trim_locked(s, &d);
	}
	pthread_mutex_unlock(&s->lock);
	detached_free(&d);
	if (more)
		shard_settle(s, false);
	return r;
}

/* ---- variants ------------------------------------------------------------------------ */

static unsigned claims_locked(const struct entry *e)
{
	return atomic_load_explicit(&e->claimed, memory_order_relaxed);
}

static void set_claims_locked(struct entry *e, unsigned claims)
{
	atomic_store_explicit(&e->claimed, (uint8_t)claims, memory_order_relaxed);
}

bool cache_claim_variant(struct cache *c, struct entry *e, enum entry_coding coding)
{
	struct shard *s = cache_shard(c, e->hash);
	unsigned claimed = 1u << coding;
	bool mine;

	CHECK_MAGIC(e, ENTRY_MAGIC);
	/* Relaxed: a look that spares every hit the lock once the variant is being made, or is
	 * known to be of no use. */
	if (atomic_load_explicit(&e->claimed, memory_order_relaxed) & claimed)
		return false;
	pthread_mutex_lock(&s->lock);
	mine = (e->flags & FLAG_LINKED) && !(claims_locked(e) & claimed);
	if (mine)
		set_claims_locked(e, claims_locked(e) | claimed);
	pthread_mutex_unlock(&s->lock);
	return mine;
}

void cache_unclaim_variant(struct cache *c, struct entry *e, enum entry_coding coding)
{
	struct shard *s = cache_shard(c, e->hash);

	pthread_mutex_lock(&s->lock);
	ALWAYS(claims_locked(e) & 1u << coding);
	set_claims_locked(e, claims_locked(e) & ~(1u << coding));
	pthread_mutex_unlock(&s->lock);
}

/* False: the entry has no use for it. */
static bool attach_locked(struct shard *s, struct entry *e, enum entry_coding coding,
                          struct variant *v)
{
	ALWAYS(claims_locked(e) & 1u << coding);
	ALWAYS(!atomic_load_explicit(&e->variant[coding], memory_order_relaxed));
	if (!(e->flags & FLAG_LINKED) ||
	    !shard_may_store_locked(s, e, entry_charge(e) + allocated(v)))
		return false;
	/* Release: readers follow the pointer without the lock. */
	atomic_store_explicit(&e->variant[coding], v, memory_order_release);
	shard_grown_locked(s, e, allocated(v));
	return true;
}

void cache_attach(struct cache *c, struct entry *e, enum entry_coding coding, void *bytes,
                  size_t len)
{
	struct shard *s = cache_shard(c, e->hash);
	struct detached d = {0};
	struct variant *v;
	bool attached, more;

	CHECK_MAGIC(e, ENTRY_MAGIC);
	if (!bytes)
		return;
	/* Copied, since encoders leave room at the end. */
	v = variant_new(bytes, len);
	free(bytes);
	if (!v) {
		cache_unclaim_variant(c, e, coding);
		return;
	}
	pthread_mutex_lock(&s->lock);
	attached = attach_locked(s, e, coding, v);
	more = attached && shard_trim_locked(s, &d);
	pthread_mutex_unlock(&s->lock);
	if (!attached)
		free(v);
	detached_free(&d);
	if (more)
		shard_settle(s, false);
}

/* ---- keeping ------------------------------------------------------------------------- */

void cache_sweep(struct cache *c, uint64_t now_ms)
{
	unsigned turn;

	CHECK_MAGIC(c, CACHE_MAGIC);
	/* Relaxed: any order of shards will do that comes to each of them. */
	turn = atomic_fetch_add_explicit(&c->sweeps, 1, memory_order_relaxed);
	shard_sweep(&c->shard[turn % c->shards], c->generations, now_ms,
	            CACHE_SWEEP_TURN / c->shards);
}
