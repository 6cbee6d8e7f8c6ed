/*
 * table: a hash table of what the hub looks up by name. Intrusive: nodes lie in their objects.
 * Names may be chosen by clients, so the hash is keyed. Grows, never shrinks; the hub's thread
 * only.
 */
#ifndef PROVOST_WS_TABLE_H
#define PROVOST_WS_TABLE_H

#include "provost/base.h"

struct table_node {
	struct table_node *next;
	const void *key; /* in the object */
	uint32_t key_len;
	uint32_t hash;
};

struct table {
	struct table_node **bucket;
	size_t buckets, count; /* buckets: a power of two */
	unsigned char secret[16];
};

/* Exits when out of memory. */
void table_init(struct table *t);
/* It must be empty. */
void table_done(struct table *t);

struct table_node *table_find(const struct table *t, const void *key, size_t n);
/* There is none of that key. */
void table_add(struct table *t, struct table_node *node, const void *key, size_t n);
void table_remove(struct table *t, struct table_node *node);

/* Each of them; `f` may remove the one it is given. */
void table_each(struct table *t, void (*f)(void *arg, struct table_node *node), void *arg);

#endif
