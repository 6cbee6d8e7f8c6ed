#include "names.h"

#include <sodium.h>
#include <string.h>

enum { BUCKETS_MIN = 64 };

static uint32_t hash_of(const struct names *t, const void *key, size_t n)
{
	unsigned char out[crypto_shorthash_BYTES];
	uint32_t h;
	crypto_shorthash(out, key, n, t->secret);
	memcpy(&h, out, sizeof h);
	return h;
}

void names_init(struct names *t)
{
	_Static_assert(sizeof t->secret == crypto_shorthash_KEYBYTES, "SipHash's key");
	t->count = 0;
	t->buckets = BUCKETS_MIN;
	t->bucket = xcalloc(t->buckets, sizeof *t->bucket);
	randombytes_buf(t->secret, sizeof t->secret);
}

void names_done(struct names *t)
{
	ALWAYS(t->count == 0);
	free(t->bucket);
	t->bucket = NULL;
}

struct names_node *names_find(const struct names *t, const void *key, size_t n)
{
	uint32_t hash = hash_of(t, key, n);
	struct names_node *node = t->bucket[hash & (t->buckets - 1)];
	while (node && (node->hash != hash || node->key_len != n || memcmp(node->key, key, n)))
		node = node->next;
	return node;
}

/* Without memory the chains get longer, that is all. */
static void grow(struct names *t)
{
	size_t buckets = t->buckets * 2;
	struct names_node **bucket = calloc(buckets, sizeof *bucket);
	if (!bucket)
		return;
	for (size_t i = 0; i < t->buckets; i++) {
		for (struct names_node *node = t->bucket[i], *next; node; node = next) {
			struct names_node **to = &bucket[node->hash & (buckets - 1)];
			next = node->next;
			node->next = *to;
			*to = node;
		}
	}
	free(t->bucket);
	t->bucket = bucket;
	t->buckets = buckets;
}

void names_add(struct names *t, struct names_node *node, const void *key, size_t n)
{
	if (t->count >= t->buckets)
		grow(t);
	node->key = key;
	node->key_len = (uint32_t)n;
	node->hash = hash_of(t, key, n);
	struct names_node **to = &t->bucket[node->hash & (t->buckets - 1)];
	node->next = *to;
	*to = node;
	t->count++;
}

void names_remove(struct names *t, struct names_node *node)
{
	struct names_node **at = &t->bucket[node->hash & (t->buckets - 1)];
	while (*at != node) {
		ALWAYS(*at);
		at = &(*at)->next;
	}
	*at = node->next;
	t->count--;
}

void names_each(struct names *t, void (*f)(void *arg, struct names_node *node), void *arg)
{
	for (size_t i = 0; i < t->buckets; i++) {
		for (struct names_node *node = t->bucket[i], *next; node; node = next) {
			next = node->next;
			f(arg, node);
		}
	}
}
