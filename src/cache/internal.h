/*
 * internal: the inside of struct cache, for its files and their tests.
 */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include "shard.h"

enum { CACHE_MAGIC = 0x63616368, CACHE_HASH_KEY = 16 };

struct cache {
	unsigned magic;
	unsigned shards;
	unsigned char hash_key[CACHE_HASH_KEY];
	struct generations *generations;
	struct shard *shard;
	_Atomic unsigned sweeps;
	_Atomic int64_t max_entry; /* bytes, for who would rather not copy more */
	_Atomic uint64_t refused;  /* before they became entries; the shards count the others */
	_Atomic int64_t lowest;    /* bytes resident since memory was last given back */
	uint64_t trim_ms;          /* not before; of who calls cache_trim_memory */
	_Atomic int64_t capacity;  /* as configured; each shard has its share and the other rules */
};

struct shard *cache_shard(const struct cache *c, uint64_t hash);

#endif
