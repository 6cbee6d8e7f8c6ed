#include "http_impl.h"
#include "provost/pool.h"

enum { PROBE_MS = 250 }; /* between looks whether a database that seems to be down is */

/* Only asking tells when it is not: one in PROBE_MS goes and asks, in the background. Where no
 * connection can be had the pool tries by itself. */
static bool may_probe(struct http *h)
{
	uint64_t now = clock_ms();
	/* Relaxed: it bounds how often, and guards nothing. */
	uint64_t last = atomic_load_explicit(&h->probed_ms, memory_order_relaxed);
	return now - last >= PROBE_MS && pool_is_up(h->pool) &&
	       atomic_compare_exchange_strong_explicit(&h->probed_ms, &last, now,
	                                               memory_order_relaxed, memory_order_relaxed);
}

bool lookup_stale(struct http *h, const struct endpoint *e, struct cache_key key,
                  enum served *ret_served, struct cache_found *ret)
{
	if (!endpoint_is_cached(e) ||
	    !cache_get_stale(h->cache, key, &e->freshness, clock_ms(), ret))
		return false;
	/* Somebody may have had more luck meanwhile. */
	*ret_served = ret->state == CACHE_FRESH ? SERVED_HIT : SERVED_STALE_IF_ERROR;
	return true;
}

bool lookup(struct http *h, const struct ask *a, enum served *ret_served, struct cache_found *ret)
{
	static const enum served served[] = {
	    [CACHE_FRESH] = SERVED_HIT,
	    [CACHE_SWR] = SERVED_SWR,
	    [CACHE_MAX_STALE] = SERVED_MAX_STALE,
	};
	struct cache_found stale;
	*ret_served = SERVED_BYPASS;
	if (!endpoint_is_cached(a->endpoint))
		return false;
	cache_get(h->cache, a->key, &a->endpoint->freshness, clock_ms(), ret);
	if (ret->refresh)
		engine_refresh(h->engine, a);
	*ret_served = served[ret->state];
	if (ret->state != CACHE_MISS)
		return true;
	*ret_served = ret->expired ? SERVED_EXPIRED : SERVED_MISS;
	/* Known to be down: nobody is to wait for it. */
	if (!ret->stale || engine_database_is_up(h->engine) ||
	    !lookup_stale(h, a->endpoint, a->key, ret_served, &stale))
		return false;
	*ret = stale;
	if (may_probe(h))
		engine_refresh(h->engine, a);
	return true;
}
