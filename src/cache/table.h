/*
 * table: a chained hash table that grows and shrinks without a pause.
 *
 * While it changes its size there are two arrays, and every insertion and removal moves a few
 * buckets from the old one to the new one. Lookups move nothing. Arrays are allocated and freed by
 * the caller, who has a lock that this should happen outside of: ask table_wanted, allocate, then
 * table_resize; table_step gives the old array back once it is empty.
 *
 * Not thread-safe: the shard's lock.
 */
#ifndef CACHE_TABLE_H
#define CACHE_TABLE_H

#include "entry.h"

enum { TABLE_MIN = 16, TABLE_MAX = 1 << 30 }; /* buckets */

struct table {
	struct entry **bucket;
	struct entry **old;       /* NULL: all are in `bucket` */
	uint32_t mask, old_mask;  /* buckets less one */
	uint32_t moved;           /* of the old array, those below have been moved */
	size_t count;             /* entries */
	int64_t bytes, old_bytes; /* of the arrays */
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
