#include "table.h"

#include <string.h>

struct entry **table_buckets(size_t n)
{
	return calloc(n, sizeof(struct entry *));
}

void table_init(struct table *t, struct entry **bucket)
{
	*t = (struct table){
	    .bucket = bucket,
	    .mask = TABLE_MIN - 1,
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

static struct entry **bucket_of(const struct table *t, uint64_t hash)
{
	if (t->old && (hash & t->old_mask) >= t->moved)
		return &t->old[hash & t->old_mask];
	return &t->bucket[hash & t->mask];
}

/* In a large cache every line of an entry comes from memory; the ones that a hit needs are fetched
 * at once, not one after the other. */
static void prefetch(const struct entry *e)
{
	enum { LINE = 64 };

	__builtin_prefetch((const char *)e + LINE);
	__builtin_prefetch((const char *)e + 2 * LINE);
}

struct entry *table_find(const struct table *t, struct cache_key key)
{
	for (struct entry *e = *bucket_of(t, key.hash); e; e = e->next) {
		prefetch(e);
		if (e->hash == key.hash && e->key_len == key.len &&
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
	size_t n = (size_t)t->mask + 1;

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
	t->old_mask = t->mask;
	t->old_bytes = t->bytes;
	t->moved = 0;
	t->bucket = fresh;
	t->mask = (uint32_t)(n - 1);
	t->bytes = allocated(fresh);
	return true;
}

static void move_bucket(struct table *t)
{
	struct entry *e = t->old[t->moved], *next;

	for (; e; e = next) {
		struct entry **head = &t->bucket[e->hash & t->mask];

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
	for (size_t i = 0; i < n && t->moved <= t->old_mask; i++)
		move_bucket(t);
	if (t->moved <= t->old_mask)
		return NULL;
	t->old = NULL;
	t->old_bytes = 0;
	return old;
}

int64_t table_bytes_due(const struct table *t)
{
	size_t wanted;

	if (t->old)
		return t->mask < t->old_mask ? t->bytes : t->bytes + t->old_bytes;
	wanted = table_wanted(t);
	if (wanted && wanted <= t->mask)
		return (int64_t)(wanted * sizeof(struct entry *));
	return t->bytes;
}
