#include "janitor.h"

#include <time.h>

#include "provost/cache.h"
#include "provost/engine.h"
#include "provost/http.h"

enum {
	SWEEP_EVERY = 50, /* turns */
	TRIM_EVERY = 10,
};

static void *run(void *arg)
{
	struct janitor *j = arg;
	struct timespec t = {.tv_nsec = JANITOR_MS * 1000000};
	pthread_setname_np(pthread_self(), "janitor");
	for (unsigned turn = 0; !atomic_load(&j->stops); turn++) {
		engine_expire(j->engine, clock_us());
		cache_sweep(j->cache, clock_ms());
		if (turn % SWEEP_EVERY == 0)
			http_sweep(j->http, clock_ms());
		if (turn % TRIM_EVERY == 0)
			cache_trim_memory(j->cache, clock_ms());
		nanosleep(&t, NULL);
	}
	return NULL;
}

int janitor_start(struct janitor *j, struct engine *e, struct cache *c, struct http *h)
{
	j->engine = e;
	j->cache = c;
	j->http = h;
	int r = -pthread_create(&j->thread, NULL, run, j);
	j->started = r == 0; /* a failure may leave something in j->thread */
	return r;
}

void janitor_stop(struct janitor *j)
{
	atomic_store(&j->stops, true);
	if (j->started)
		pthread_join(j->thread, NULL);
	j->started = false;
}
