#include "table.h"

#include <sodium.h>
#include <string.h>

enum { BUCKETS_MIN = 64 };

static uint32_t hash_of(const struct table *t, const void *key, size_t n)
{
	unsigned char out[crypto_shorthash_BYTES];
	uint32_t h;
	crypto_shorthash(out, key, n, t->secret);
	memcpy(&h, out, sizeof h);
	return h;
}

void table_init(struct table *t)
{
	_Static_assert(sizeof t->secret == crypto_shorthash_KEYBYTES, "SipHash's key");
	t->count = 0;
	t->buckets = BUCKETS_MIN;
	t->bucket = xcalloc(t->buckets, sizeof *t->bucket);
	randombytes_buf(t->secret, sizeof t->secret);
}

void table_done(struct table *t)
{
	ALWAYS(t->count == 0);
	free(t->bucket);
	t->bucket = NULL;
}

struct table_node *table_find(const struct table *t, const void *key, size_t n)
{
	uint32_t hash = hash_of(t, key, n);
	struct table_node *node = t->bucket[hash & (t->buckets - 1)];
	while (node && (node->hash != hash || node->key_len != n || memcmp(node->key, key, n)))
		node = node->next;
	return node;
}

/* Without memory the chains get longer, that is all. */
static void grow(struct table *t)
{
	size_t buckets = t->buckets * 2;
	struct table_node **bucket = calloc(buckets, sizeof *bucket);
	if (!bucket)
		return;
	for (size_t i = 0; i < t->buckets; i++) {
		for (struct table_node *node = t->bucket[i], *next; node; node = next) {
			struct table_node **to = &bucket[node->hash & (buckets - 1)];
			next = node->next;
			node->next = *to;
			*to = node;
		}
	}
	free(t->bucket);
	t->bucket = bucket;
	t->buckets = buckets;
}

void table_add(struct table *t, struct table_node *node, const void *key, size_t n)
{
	if (t->count >= t->buckets)
		grow(t);
	node->key = key;
	node->key_len = (uint32_t)n;
	node->hash = hash_of(t, key, n);
	struct table_node **to = &t->bucket[node->hash & (t->buckets - 1)];
	node->next = *to;
	*to = node;
	t->count++;
}

void table_remove(struct table *t, struct table_node *node)
{
	struct table_node **at = &t->bucket[node->hash & (t->buckets - 1)];
	while (*at != node) {
		ALWAYS(*at);
		at = &(*at)->next;
	}
	*at = node->next;
	t->count--;
}

void table_each(struct table *t, void (*f)(void *arg, struct table_node *node), void *arg)
{
	for (size_t i = 0; i < t->buckets; i++) {
		for (struct table_node *node = t->bucket[i], *next; node; node = next) {
			next = node->next;
			f(arg, node);
		}
	}
}
