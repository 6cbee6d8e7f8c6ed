/*
 * recency: in which order entries are given up. Least recently used first.
 *
 * An entry that is hit goes to the front, but only when more than an eighth of the list has been
 * inserted since it was there last: moving writes to five cache lines, two of them of other entries,
 * and costs more than the lookup, while only insertions bring an entry nearer to being given up. So
 * entries that are hit and fit do not move at all; were moves counted too, they would go on moving
 * each other without end. No clock of time: the rule holds for any size and rate.
 * `tests/recency_bench` prints what it costs in hits.
 *
 * Not thread-safe: the shard's lock. A replacement for this policy needs these four functions.
 */
#ifndef CACHE_RECENCY_H
#define CACHE_RECENCY_H

#include "entry.h"

struct recency {
	struct entry *newest, *oldest;
	size_t count;
	uint32_t clock; /* of insertions; wraps, which once in 2^32 spares a move */
};

void recency_insert(struct recency *r, struct entry *e);
void recency_hit(struct recency *r, struct entry *e);
void recency_remove(struct recency *r, struct entry *e);
/* The one to give up next; NULL when there is none. */
struct entry *recency_victim(const struct recency *r);

#endif
