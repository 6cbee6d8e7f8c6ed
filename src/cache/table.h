/*
 * table: a chained hash table that grows and shrinks without a pause.
 *
 * While it changes its size there are two arrays, and every insertion and removal moves a few
 * buckets from the old one to the new one. Lookups move nothing. Arrays are allocated and freed by
 * the caller, who has a lock that this should happen outside of: ask table_wanted, allocate, then
 * table_resize; table_step gives the old array back once it is empty.
 *
 * A bucket is a range of the hash's lower half, so that arrays of any size have entries in the same
 * order: a walk by hash goes on where it was, whatever has become of the size meanwhile.
 *
 * Not thread-safe: the shard's lock.
 */
#ifndef CACHE_TABLE_H
#define CACHE_TABLE_H

#include "entry.h"

enum { TABLE_MIN = 16, TABLE_MAX = 1 << 30 }; /* buckets */

struct table {
	struct entry **bucket;
	struct entry **old;        /* NULL: all are in `bucket` */
	unsigned shift, old_shift; /* an array has 2^(32 - shift) buckets */
	uint32_t moved;            /* of the old array, those below have been moved */
	size_t count;              /* entries */
	int64_t bytes, old_bytes;  /* of the arrays */
};

/* An array of so many empty buckets, or NULL when out of memory. */
struct entry **table_buckets(size_t n);
/* With `bucket` of TABLE_MIN buckets. */
void table_init(struct table *t, struct entry **bucket);
/* Gives back the array of an empty table. */
struct entry **table_done(struct table *t);

struct entry *table_find(const struct table *t, struct cache_key key);
void table_insert(struct table *t, struct entry *e);
void table_remove(struct table *t, struct entry *e);

size_t table_size(const struct table *t); /* buckets */

/* Calls `look` with every entry whose hash's lower half is in the bucket that contains `at`, and
 * gives the first value past that bucket, 0 at the end. `look` may remove the entry that it is
 * given. */
uint32_t table_walk(struct table *t, uint32_t at, void (*look)(struct entry *e, void *arg),
                    void *arg);

/* How many buckets it should have, when it should have another number and is not changing already;
 * else 0. */
size_t table_wanted(const struct table *t);
/* Begins to use `fresh` of `n` buckets. False, with nothing done, when that is not wanted (any
 * more). */
bool table_resize(struct table *t, struct entry **fresh, size_t n);
/* Moves up to `n` buckets. The old array when the last one was moved, else NULL. */
struct entry **table_step(struct table *t, size_t n);
/* What its arrays will take once it has the size that it is changing to. */
int64_t table_bytes_due(const struct table *t);

#endif
