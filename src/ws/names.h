/*
 * names: a hash table of what the hub looks up by name. Intrusive: nodes lie in their objects.
 * Names may be chosen by clients, so the hash is keyed. Grows, never shrinks; the hub's thread
 * only.
 */
#ifndef PROVOST_WS_NAMES_H
#define PROVOST_WS_NAMES_H

#include "provost/base.h"

struct names_node {
	struct names_node *next;
	const void *key; /* in the object */
	uint32_t key_len;
	uint32_t hash;
};

struct names {
	struct names_node **bucket;
	size_t buckets, count; /* buckets: a power of two */
	unsigned char secret[16];
};

/* Exits when out of memory. */
void names_init(struct names *t);
/* It must be empty. */
void names_done(struct names *t);

struct names_node *names_find(const struct names *t, const void *key, size_t n);
/* There is none of that key. */
void names_add(struct names *t, struct names_node *node, const void *key, size_t n);
void names_remove(struct names *t, struct names_node *node);

/* Each of them; `f` may remove the one it is given. */
void names_each(struct names *t, void (*f)(void *arg, struct names_node *node), void *arg);

#endif
