#include "listener_impl.h"

#include <errno.h>
#include <sodium.h>
#include <sys/eventfd.h>

/* ---- life ---------------------------------------------------------------------------- */

struct listener *listener_new(const struct listener_options *o, struct generations *g,
                              struct snapshot *catalog, const struct listener_sink *sink)
{
	struct listener *l = xcalloc(1, sizeof *l);

	l->magic = LISTENER_MAGIC;
	l->url = xstrdup(o->url);
	l->generations = g;
	l->catalog = catalog;
	if (sink)
		l->sink = *sink;
	l->heartbeat_ms = o->heartbeat_ms;
	l->sync_timeout_ms = o->sync_timeout_ms;
	l->stats.state = LISTENER_CONNECTING;
	l->stream.stats.state = LISTENER_CONNECTING;
	pthread_mutex_init(&l->lock, NULL);
	syncs_init(&l->syncs);
	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ALWAYS(l->wake >= 0 && sodium_init() >= 0);
	return l;
}

int listener_start(struct listener *l)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	generations_trust(l->generations, 0);
	int r = -pthread_create(&l->thread, NULL, stream_run, l);
	l->started = r == 0;
	return r;
}

static void wake(struct listener *l)
{
	uint64_t one = 1;
	/* It fails when it is awake anyway. */
	(void)!write(l->wake, &one, sizeof one);
}

void listener_configure(struct listener *l, const struct listener_options *o)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	pthread_mutex_lock(&l->lock);
	l->heartbeat_ms = o->heartbeat_ms;
	l->sync_timeout_ms = o->sync_timeout_ms;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

void listener_stop(struct listener *l)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	if (!l->started)
		return;
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	pthread_join(l->thread, NULL);
	l->started = false;
}

void listener_free(struct listener **lp)
{
	struct listener *l = *lp;

	if (!l)
		return;
	CHECK_MAGIC(l, LISTENER_MAGIC);
	ALWAYS(!l->started);
	*lp = NULL;
	narrowings_done(&l->stream.narrowings);
	syncs_done(&l->syncs);
	pthread_mutex_destroy(&l->lock);
	close(l->wake);
	free(l->url);
	l->magic = 0;
	free(l);
}

/* ---- reading one's writes ------------------------------------------------------------ */

void listener_expect(struct listener *l, struct sync *s)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	syncs_expect(&l->syncs, s);
}

bool listener_await(struct listener *l, struct sync *s, uint64_t deadline_us)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	pthread_mutex_lock(&l->lock);
	uint64_t patience_us = (uint64_t)l->sync_timeout_ms * 1000;
	pthread_mutex_unlock(&l->lock);
	return syncs_await(&l->syncs, s, MIN(deadline_us, clock_us() + patience_us));
}

void listener_forget(struct listener *l, struct sync *s)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	syncs_forget(&l->syncs, s);
}

/* ---- looking ------------------------------------------------------------------------- */

const char *listener_state_name(enum listener_state s)
{
	static const char *const names[] = {
	    [LISTENER_CONNECTING] = "connecting",
	    [LISTENER_LIVE] = "live",
	    [LISTENER_OVERDUE] = "overdue",
	    [LISTENER_STOPPED] = "stopped",
	};
	return names[s];
}

void listener_stats(struct listener *l, struct listener_stats *ret)
{
	CHECK_MAGIC(l, LISTENER_MAGIC);
	pthread_mutex_lock(&l->lock);
	*ret = l->stats;
	pthread_mutex_unlock(&l->lock);
	syncs_stats(&l->syncs, &ret->syncs, &ret->late_syncs);
}

uint64_t listener_down_us(const struct listener *l)
{
	uint64_t down_us = atomic_load_explicit(&l->down_us, memory_order_relaxed);
	uint64_t lease_us = atomic_load_explicit(&l->lease_us, memory_order_relaxed);

	/* The thread may not have come to notice that the heartbeat is overdue, which is when the
	 * lease ends, and nothing is fresh. */
	if (!down_us && lease_us && clock_us() >= lease_us)
		return lease_us;
	return down_us;
}
