#include <malloc.h>

#include "internal.h"

/*
 * glibc gives every thread an arena, and what one thread allocated and another freed stays in the
 * first one's: with entries made by workers and dropped by whoever evicts them, the process grew to
 * 1.3 times what the cache holds; with one arena to 1.1. Small blocks come from each thread's own
 * cache (tcache) either way, so that the one arena's lock is not what threads wait for.
 *
 * A threshold that is set stays: left alone it follows the largest block freed, up to 32 MiB, and
 * large bodies then leave holes in the heap instead of going back to the system.
 *
 * What remains are the holes between entries that stay, when the sizes of new ones change: 1.6
 * times the capacity. malloc_trim gives their pages back. It goes through the whole heap under the
 * arena's lock, 0.12 ms per MiB, during which whoever needs more than its own cache holds waits:
 * hence only when the process has grown by a good deal, and TRIM_EVERY_MS apart unless it is about
 * to become much too large.
 */
enum {
	MAPPED_FROM = 128 * 1024,
	TRIM_FROM = 16 * 1024 * 1024,
	TRIM_PART = 8, /* of the capacity */
	TRIM_LEAST = 16 * 1024 * 1024,
	TRIM_EVERY_MS = 10000,
};

void cache_tune_allocator(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
	mallopt(M_TRIM_THRESHOLD, TRIM_FROM);
}

/* Bytes that the process has in memory; -1 when the system does not tell. */
static int64_t resident(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	long size, pages;

	if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2)
		return -1;
	return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

void cache_trim_memory(struct cache *c, uint64_t now_ms)
{
	int64_t capacity, lowest, part, now = resident();

	CHECK_MAGIC(c, CACHE_MAGIC);
	/* Relaxed: neither says anything about other memory. */
	capacity = atomic_load_explicit(&c->capacity, memory_order_relaxed);
	lowest = atomic_load_explicit(&c->lowest, memory_order_relaxed);
	part = MAX(capacity / TRIM_PART, (int64_t)TRIM_LEAST);
	if (now >= capacity + 2 * part && now >= lowest + part &&
	    (now_ms >= c->trim_ms || now >= capacity + 3 * part)) {
		malloc_trim(0);
		c->trim_ms = now_ms + TRIM_EVERY_MS;
		lowest = now = resident();
	}
	atomic_store_explicit(&c->lowest, MIN(lowest ? lowest : now, now), memory_order_relaxed);
}
