/*
 * shard: a part of the cache with a lock of its own.
 *
 * `_locked` functions are called with the lock; the others take it, for a bounded piece of work at
 * a time. What leaves the shard under the lock is collected in a `struct detached` and freed after
 * it.
 */
#ifndef CACHE_SHARD_H
#define CACHE_SHARD_H

#include <pthread.h>

#include "recency.h"
#include "table.h"
#include "top.h"

enum {
	SHARD_ALIGN = 128,  /* two lines: they are fetched in pairs */
	SHARD_EVICT = 64,   /* entries evicted under one lock */
	SHARD_STEP = 8,     /* buckets moved with a put: a doubling is over long before the next */
	SHARD_PIECE = 128,  /* buckets moved, or swept, under one lock by who does nothing else */
	SHARD_SWEEP = 8192, /* buckets swept in one call */
	ABSENCE_SHARE = 16, /* part of the shard's bytes that absences have */
	ENTRY_SHARE = 4,    /* part of it that one entry may take */
};

struct counters {
	uint64_t swr, max_stale, stale_if_error;
	uint64_t stores, evictions, expirations, invalidations, refused, outdated;
};

struct rules {
	int64_t share; /* bytes */
	int64_t max_entry;
	int64_t negative_ttl_ms;
};

/* A hit writes to the first cache line only: each line that two threads write to in turn costs as
 * much as a lookup does. */
struct shard {
	_Alignas(SHARD_ALIGN) pthread_mutex_t lock; /* guards all of this, and its linked entries */
	uint64_t hits, misses;
	_Alignas(SHARD_ALIGN / 2) struct table table;
	struct counters n;
	struct recency bodies, absences;
	struct top top;
	struct rules rules;
	int64_t bytes;         /* of entries and their variants; the table knows its own */
	int64_t absence_bytes; /* of them */
	uint32_t swept;        /* where the sweep is in table_walk */
};

struct detached {
	struct entry *entries; /* by `next` */
	struct entry **buckets;
};

void shard_init(struct shard *s);
void shard_done(struct shard *s);

/* Its bytes, the hash table's included. */
int64_t shard_bytes_locked(const struct shard *s);
bool shard_may_store_locked(const struct shard *s, const struct entry *e, int64_t charge);

/* Takes over the caller's reference. There is no entry of that key. */
void shard_link_locked(struct shard *s, struct entry *e);
void shard_unlink_locked(struct shard *s, struct entry *e, struct detached *d);
/* `by` takes the place of `e`, with its hits. */
void shard_replace_locked(struct shard *s, struct entry *e, struct entry *by, struct detached *d);
/* A hit was counted on the entry. */
void shard_hit_locked(struct shard *s, struct entry *e);
/* The linked entry has become larger. */
void shard_grown_locked(struct shard *s, const struct entry *e, int64_t bytes);

/* Evicts what is too much, SHARD_EVICT entries at most, and moves some buckets if there are any to
 * move. True: shard_settle is to do the rest. */
bool shard_trim_locked(struct shard *s, struct detached *d);

/* Brings the shard within its share, and its table to the size that it should have; `all`: waits
 * for the table's old array to be gone, too. */
void shard_settle(struct shard *s, bool all);

/* Looks at a `visits`-th of the entries, those in SHARD_SWEEP buckets at most, and frees what
 * nothing serves any more. So many calls see all that is there throughout. */
void shard_sweep(struct shard *s, const struct generations *g, uint64_t now_ms, unsigned visits);

void detached_free(struct detached *d);

#endif
