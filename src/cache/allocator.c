#include <malloc.h>

#include "provost/cache.h"

/*
 * glibc gives every thread an arena, and what one thread allocated and another freed stays in the
 * first one's: with entries made by workers and dropped by whoever evicts them, the process grew to
 * 1.3 times what the cache holds; with one arena to 1.05. Small blocks come from each thread's own
 * cache (tcache) either way, so that the one arena's lock is not what threads wait for.
 *
 * A threshold that is set stays: left alone it follows the largest block freed, up to 32 MiB, and
 * large bodies then leave holes in the heap instead of going back to the system.
 */
enum { MAPPED_FROM = 256 * 1024, TRIM_FROM = 16 * 1024 * 1024 };

void cache_tune_allocator(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
	mallopt(M_TRIM_THRESHOLD, TRIM_FROM);
}
