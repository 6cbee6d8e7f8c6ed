#include "table.h"

#include <string.h>

enum { HASH_BITS = 32 };

static size_t index_of(uint64_t hash, unsigned shift)
{
	return (uint32_t)hash >> shift;
}

struct entry **table_buckets(size_t n)
{
	return calloc(n, sizeof(struct entry *));
}

static unsigned shift_of(size_t n)
{
	return HASH_BITS - (unsigned)__builtin_ctzl(n);
}

void table_init(struct table *t, struct entry **bucket)
{
	*t = (struct table){
	    .bucket = bucket,
	    .shift = shift_of(TABLE_MIN),
	    .bytes = allocated(bucket),
	};
}

struct entry **table_done(struct table *t)
{
	struct entry **bucket = t->bucket;

	ALWAYS(t->count == 0);
	while (t->old)
		free(table_step(t, TABLE_MAX));
	*t = (struct table){0};
	return bucket;
}

size_t table_size(const struct table *t)
{
	return (size_t)1 << (HASH_BITS - t->shift);
}

static size_t old_size(const struct table *t)
{
	return (size_t)1 << (HASH_BITS - t->old_shift);
}

static struct entry **bucket_of(const struct table *t, uint64_t hash)
{
	if (t->old && index_of(hash, t->old_shift) >= t->moved)
		return &t->old[index_of(hash, t->old_shift)];
	return &t->bucket[index_of(hash, t->shift)];
}

/* In a large cache every line of an entry comes from memory; those that a hit needs are fetched at
 * once, not one after the other. */
static void prefetch(const struct entry *e, size_t from, size_t to)
{
	enum { LINE = 64 };

	for (size_t i = from; i < to; i++)
		__builtin_prefetch((const char *)e + i * LINE);
}

struct entry *table_find(const struct table *t, struct cache_key key)
{
	for (struct entry *e = *bucket_of(t, key.hash); e; e = e->next) {
		prefetch(e, 1, 3);
		if (e->hash != key.hash)
			continue;
		/* The key, and a small body, which is going to be sent. */
		prefetch(e, 3, 9);
		if (e->key_len == key.len &&
		    (key.len == 0 || memcmp(entry_key(e), key.bytes, key.len) == 0)) {
			CHECK_MAGIC(e, ENTRY_MAGIC);
			return e;
		}
	}
	return NULL;
}

void table_insert(struct table *t, struct entry *e)
{
	struct entry **head = bucket_of(t, e->hash);

	e->next = *head;
	*head = e;
	t->count++;
}

void table_remove(struct table *t, struct entry *e)
{
	struct entry **at = bucket_of(t, e->hash);

	while (*at != e) {
		ALWAYS(*at != NULL);
		at = &(*at)->next;
	}
	*at = e->next;
	e->next = NULL;
	ALWAYS(t->count > 0);
	t->count--;
}

/* Doubled when there are more entries than buckets; to half full when less than an eighth is used:
 * far enough apart that a number of entries which goes up and down moves nothing. */
size_t table_wanted(const struct table *t)
{
	size_t n = table_size(t);

	if (t->old)
		return 0;
	if (t->count > n)
		return n < TABLE_MAX ? n * 2 : 0;
	if (n == TABLE_MIN || t->count >= n / 8)
		return 0;
	while (n > TABLE_MIN && n / 2 >= t->count * 2)
		n /= 2;
	return n;
}

bool table_resize(struct table *t, struct entry **fresh, size_t n)
{
	if (table_wanted(t) != n)
		return false;
	t->old = t->bucket;
	t->old_shift = t->shift;
	t->old_bytes = t->bytes;
	t->moved = 0;
	t->bucket = fresh;
	t->shift = shift_of(n);
	t->bytes = allocated(fresh);
	return true;
}

static void move_bucket(struct table *t)
{
	struct entry *e = t->old[t->moved], *next;

	for (; e; e = next) {
		struct entry **head = &t->bucket[index_of(e->hash, t->shift)];

		next = e->next;
		e->next = *head;
		*head = e;
	}
	t->old[t->moved++] = NULL;
}

struct entry **table_step(struct table *t, size_t n)
{
	struct entry **old = t->old;

	if (!old)
		return NULL;
	for (size_t i = 0; i < n && t->moved < old_size(t); i++)
		move_bucket(t);
	if (t->moved < old_size(t))
		return NULL;
	t->old = NULL;
	t->old_bytes = 0;
	return old;
}

int64_t table_bytes_due(const struct table *t)
{
	size_t wanted;

	if (t->old)
		return t->shift > t->old_shift ? t->bytes : t->bytes + t->old_bytes;
	wanted = table_wanted(t);
	if (wanted && wanted < table_size(t))
		return (int64_t)(wanted * sizeof(struct entry *));
	return t->bytes;
}

static void walk_bucket(struct entry *e, void (*look)(struct entry *e, void *arg), void *arg)
{
	struct entry *next;

	for (; e; e = next) {
		next = e->next;
		look(e, arg);
	}
}

uint32_t table_walk(struct table *t, uint32_t at, void (*look)(struct entry *e, void *arg),
                    void *arg)
{
	size_t i = index_of(at, t->shift);
	uint32_t first = (uint32_t)(i << t->shift), last = first + ((1u << t->shift) - 1);

	walk_bucket(t->bucket[i], look, arg);
	if (t->old) {
		for (size_t k = index_of(first, t->old_shift); k <= index_of(last, t->old_shift);
		     k++)
			walk_bucket(t->old[k], look, arg);
	}
	return last + 1;
}
