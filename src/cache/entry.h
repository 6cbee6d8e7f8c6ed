/*
 * entry: the inside of a stored answer, for the files of the cache.
 *
 * One allocation: this, the slots of its tags, the key, the body. What `entry_new` wrote never
 * changes. The rest is guarded by the lock of the shard that the entry is in, but for `refs` and
 * `variant`, which are atomic, and `senders`, which is not the cache's.
 *
 * The order of the fields is that of a lookup: what a hit reads and writes comes first.
 */
#ifndef CACHE_ENTRY_H
#define CACHE_ENTRY_H

#include <stdatomic.h>

#include "provost/cache.h"

enum { ENTRY_MAGIC = 0x656e7472 };

enum {
	FLAG_PUT = 1 << 0,         /* has been in a cache, and is not to be put again */
	FLAG_LINKED = 1 << 1,      /* is in it now */
	FLAG_TOP = 1 << 2,         /* is among the shard's most used */
	FLAG_EXPIRED = 1 << 3,     /* counted as such */
	FLAG_INVALIDATED = 1 << 4, /* counted as such */
	FLAG_PERISHABLE = 1 << 5,  /* of no use to anybody once it is invalidated */
};

struct variant {
	size_t len;
	unsigned char bytes[];
};

struct entry {
	/* These sixteen bytes, which malloc aligns so that they share a cache line, are all that a
	 * hit writes. */
	_Atomic unsigned refs;
	uint32_t moved; /* recency's */
	uint64_t hits;
	struct entry *next; /* in its bucket, or among the detached */
	uint64_t hash;
	uint64_t start;
	uint64_t started_ms;
	uint32_t key_len;
	uint16_t slots;
	uint16_t shave; /* of 65536ths: how much of a twentieth of its ttl it goes without */
	unsigned magic;
	uint8_t kind;
	uint8_t flags;
	uint32_t body_len;
	uint32_t refresh_age_ms;     /* from which on another caller is told to refresh it */
	struct entry *newer, *older; /* recency's */
	uint64_t dead_ms;            /* from when on nothing serves it */
	struct variant *_Atomic variant[CODING_COUNT];
	unsigned char etag[16];
	unsigned senders;
	/* Bits of 1 << coding: the variant was given out to be made. Written under the shard's
	 * lock, looked at without it. */
	_Atomic uint8_t claimed;
	gen_slot tail[]; /* the slots, then the key, then the body */
};

static inline const unsigned char *entry_key(const struct entry *e)
{
	return (const unsigned char *)(e->tail + e->slots);
}

/* What the allocator uses for a block of malloc's; its own header comes before what it tells. */
int64_t allocated(void *block);

/* Of the budget: the entry with the variants it has. */
int64_t entry_charge(const struct entry *e);

struct variant *variant_new(const void *bytes, size_t len);

#endif
