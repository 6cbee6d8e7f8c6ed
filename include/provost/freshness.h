/*
 * freshness: how long an answer may be served, in the terms of RFC 9111 and RFC 5861. Plain data.
 *
 * Where it comes from, the first that says something: [endpoint NAME] of the configuration, the
 * endpoint's @cache, [cache].
 */
#ifndef PROVOST_FRESHNESS_H
#define PROVOST_FRESHNESS_H

#include <stdint.h>

struct freshness {
	int64_t ttl_ms;            /* fresh for that long, unless invalidated; 0: never */
	int64_t swr_ms;            /* past the ttl: served stale while one refresh runs */
	int64_t max_stale_ms;      /* after an invalidation: served when begun less than this ago */
	int64_t stale_if_error_ms; /* past the ttl: served when the database has failed */
};

#endif
