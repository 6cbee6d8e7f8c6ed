/*
 * top: the entries of a shard with the most hits, kept while they are hit.
 *
 * Nothing is ever walked: a hit compares with the smallest of those that are kept. When one of them
 * leaves, its place goes to the next entry that is hit; one with more hits takes it over with its
 * own next hit, which for such entries is soon. Not thread-safe: the shard's lock.
 */
#ifndef CACHE_TOP_H
#define CACHE_TOP_H

#include "entry.h"

struct top {
	struct entry *entry[CACHE_TOP]; /* in no order */
	unsigned count;
	uint64_t floor; /* none of them has fewer hits */
};

/* The entry's hits have been raised. */
void top_hit(struct top *t, struct entry *e);
void top_remove(struct top *t, struct entry *e);

#endif
