/*
 * verdict: what an entry is good for at a moment, under given rules. Pure.
 */
#ifndef CACHE_VERDICT_H
#define CACHE_VERDICT_H

#include "entry.h"

struct verdict {
	enum cache_state state;
	int64_t left_ms; /* of its ttl; 0 or less: past */
	int64_t age_ms;
	bool stale; /* may be served when the database has failed */
};

struct verdict verdict_of(const struct entry *e, const struct freshness *f, int64_t negative_ttl_ms,
                          bool invalidated, uint64_t now_ms);

/* From when on nothing serves it under these rules, whatever becomes of its tags. */
uint64_t verdict_dead_ms(const struct entry *e, const struct freshness *f, int64_t negative_ttl_ms);

/* Whether it is of no use once it is invalidated. */
bool verdict_perishable(const struct entry *e, const struct freshness *f);

#endif
