/*
 * janitor: the thread of what is done again and again, and nobody waits for: jobs past their time
 * in the queue, the sweeps of cache and connections, memory that is given back.
 */
#ifndef PROVOST_JANITOR_H
#define PROVOST_JANITOR_H

#include <pthread.h>
#include <stdatomic.h>

#include "provost/base.h"

enum { JANITOR_MS = 10 };

struct cache;
struct engine;
struct http;

struct janitor {
	struct engine *engine;
	struct cache *cache;
	struct http *http;
	pthread_t thread;
	bool started;
	atomic_bool stops;
};

/* Borrows them, until it is stopped. 0 or a negative errno. */
int janitor_start(struct janitor *j, struct engine *e, struct cache *c,
                  struct http *h) _must_check_;
/* Returns when the thread is gone; also of one that could not be started, or never was. */
void janitor_stop(struct janitor *j);

#endif
