#include "verdict.h"

/* The ttl of this entry: a little less than what the rules say, and each its own. */
static int64_t own_ttl_ms(const struct entry *e, const struct freshness *f, int64_t negative_ttl_ms)
{
	int64_t ttl = f->ttl_ms;

	/* Rules that bound how old an answer may be bound that of "there is none", too. */
	if (e->kind == ENTRY_ABSENCE)
		ttl = MIN(ttl, negative_ttl_ms);
	return ttl - (int64_t)((unsigned __int128)(ttl / 20) * e->shave >> 16);
}

struct verdict verdict_of(const struct entry *e, const struct freshness *f, int64_t negative_ttl_ms,
                          bool invalidated, uint64_t now_ms)
{
	struct verdict v = {.state = CACHE_MISS};
	bool body = e->kind == ENTRY_BODY;

	/* Another thread's clock may have been read a little earlier. */
	v.age_ms = now_ms > e->started_ms ? (int64_t)(now_ms - e->started_ms) : 0;
	v.left_ms = own_ttl_ms(e, f, negative_ttl_ms) - v.age_ms;
	/* None without stale_if_error, not even what is fresh: whoever asks knows that the
	 * database, and with it the news of invalidations, has failed. */
	v.stale = body && f->stale_if_error_ms > 0 && -v.left_ms < f->stale_if_error_ms;

	if (v.left_ms > 0 && !invalidated)
		v.state = CACHE_FRESH;
	else if (v.left_ms > 0 && body && v.age_ms < f->max_stale_ms)
		v.state = CACHE_MAX_STALE;
	else if (v.left_ms <= 0 && !invalidated && body && -v.left_ms < f->swr_ms)
		v.state = CACHE_SWR;
	return v;
}

uint64_t verdict_dead_ms(const struct entry *e, const struct freshness *f, int64_t negative_ttl_ms)
{
	int64_t ttl = own_ttl_ms(e, f, negative_ttl_ms);
	uint64_t dead = e->started_ms + (uint64_t)MAX(ttl, 0);

	if (e->kind == ENTRY_BODY)
		dead += (uint64_t)MAX(f->swr_ms, f->stale_if_error_ms);
	return dead;
}

bool verdict_perishable(const struct entry *e, const struct freshness *f)
{
	return e->kind == ENTRY_ABSENCE || (f->max_stale_ms == 0 && f->stale_if_error_ms == 0);
}
