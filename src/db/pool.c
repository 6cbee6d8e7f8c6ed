#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "cancel.h"
#include "pool_impl.h"

static void raise_event(int fd)
{
	uint64_t one = 1;
	while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

void pool_wake(struct pool *p)
{
	raise_event(p->wake);
}

/* ---- states -------------------------------------------------------------------------- */

static bool may_move(enum conn_state from, enum conn_state to)
{
	switch (from) {
	case CONN_CONNECTING:
		return to == CONN_IDLE || to == CONN_CLOSED;
	case CONN_IDLE:
		return to == CONN_BUSY || to == CONN_CLOSED;
	case CONN_BUSY:
		return to == CONN_IDLE || to == CONN_DRAINING || to == CONN_CLOSED;
	case CONN_DRAINING:
		return to == CONN_IDLE || to == CONN_CLOSED;
	default:
		return false;
	}
}

void conn_move_locked(struct pool *p, struct conn *c, enum conn_state to, uint64_t now_us)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	ALWAYS(may_move(c->state, to));
	TAILQ_REMOVE(&p->list[c->state], c, link);
	p->count[c->state]--;
	c->state = to;
	c->since_us = now_us;
	if (to == CONN_CLOSED)
		return;
	TAILQ_INSERT_HEAD(&p->list[to], c, link);
	p->count[to]++;
}

unsigned pool_total_locked(const struct pool *p)
{
	return p->count[CONN_CONNECTING] + p->count[CONN_IDLE] + p->count[CONN_BUSY] +
	       p->count[CONN_DRAINING];
}

unsigned pool_alive_locked(const struct pool *p)
{
	return p->count[CONN_IDLE] + p->count[CONN_BUSY] + p->count[CONN_DRAINING];
}

/* ---- borrowers ----------------------------------------------------------------------- */

static void waiter_end_locked(struct pool *p, struct waiter *w, struct conn *c)
{
	TAILQ_REMOVE(&p->waiters, w, link);
	p->waiting--;
	w->conn = c;
	w->done = true;
	pthread_cond_signal(&w->served);
}

void pool_serve_locked(struct pool *p, uint64_t now_us)
{
	struct conn *c;
	struct waiter *w;
	while ((w = TAILQ_FIRST(&p->waiters)) && (c = TAILQ_FIRST(&p->list[CONN_IDLE]))) {
		conn_move_locked(p, c, CONN_BUSY, now_us);
		waiter_end_locked(p, w, c);
	}
}

void pool_refuse_locked(struct pool *p)
{
	struct waiter *w;
	while ((w = TAILQ_FIRST(&p->waiters)))
		waiter_end_locked(p, w, NULL);
}

static void deadline_after(struct timespec *ret, int64_t ms)
{
	clock_gettime(CLOCK_MONOTONIC, ret);
	ret->tv_sec += ms / 1000;
	ret->tv_nsec += ms % 1000 * 1000000;
	if (ret->tv_nsec >= 1000000000) {
		ret->tv_sec++;
		ret->tv_nsec -= 1000000000;
	}
}

static int none_left(const struct pool *p)
{
	return p->refusing ? -ESHUTDOWN : -ENOTCONN;
}

static int wait_locked(struct pool *p, struct conn **ret)
{
	struct waiter w = {0};
	struct timespec until;
	pthread_condattr_t attr;
	deadline_after(&until, p->options.acquire_timeout_ms);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w.served, &attr);
	pthread_condattr_destroy(&attr);

	TAILQ_INSERT_TAIL(&p->waiters, &w, link);
	p->waiting++;
	pool_wake(p);
	int timed_out = 0;
	while (!w.done && !timed_out)
		timed_out = pthread_cond_timedwait(&w.served, &p->lock, &until);
	if (!w.done) {
		TAILQ_REMOVE(&p->waiters, &w, link);
		p->waiting--;
	}
	pthread_cond_destroy(&w.served);
	if (!w.done)
		return -ETIMEDOUT;
	*ret = w.conn;
	return w.conn ? 0 : none_left(p);
}

static int acquire(struct pool *p, struct conn **ret)
{
	struct conn *c;
	int r = 0;
	pthread_mutex_lock(&p->lock);
	if (p->refusing)
		r = -ESHUTDOWN;
	else if (TAILQ_EMPTY(&p->waiters) && (c = TAILQ_FIRST(&p->list[CONN_IDLE]))) {
		conn_move_locked(p, c, CONN_BUSY, clock_us());
		*ret = c;
	} else if (p->down)
		r = -ENOTCONN;
	else
		r = wait_locked(p, ret);
	pthread_mutex_unlock(&p->lock);
	return r;
}

bool pool_was_closed(struct conn *c)
{
	struct pollfd f = {.fd = conn_fd(c), .events = POLLIN};
	if (poll(&f, 1, 0) == 0)
		return false;
	conn_give_up(c);
	return true;
}

int pool_acquire(struct pool *p, bool verify, struct conn **ret)
{
	struct conn *c = NULL;
	int r;
	while ((r = acquire(p, &c)) == 0 && verify && pool_was_closed(c))
		pool_release(p, &c);
	if (r == 0)
		*ret = c;
	return r;
}

bool pool_surplus_locked(const struct pool *p, const struct conn *c, uint64_t now_us)
{
	return p->stopping || pool_total_locked(p) > p->options.max ||
	       (c->expires_us && now_us >= c->expires_us) || c->prepareds > p->prepared_max ||
	       c->bloated || c->prepare != p->options.prepare;
}

void pool_release(struct pool *p, struct conn **cp)
{
	struct conn *c = *cp, *closed = NULL;
	struct cancel_request *request = NULL;
	*cp = NULL;
	enum conn_condition condition = conn_condition(c);
	if (condition == CONN_DIRTY && !(request = cancel_request_new(c)))
		condition = CONN_BROKEN;
	conn_watch(c, -1);
	conn_insist(c, false);

	uint64_t now = clock_us();
	pthread_mutex_lock(&p->lock);
	if (condition == CONN_BROKEN)
		p->lost++;
	if (condition == CONN_CLEAN)
		p->answered_us = now;
	if (condition == CONN_BROKEN ||
	    (condition == CONN_CLEAN && pool_surplus_locked(p, c, now)) || p->stopping) {
		conn_move_locked(p, c, CONN_CLOSED, now);
		closed = c;
	} else if (condition == CONN_DIRTY || c->cancels > 0) {
		c->cancels += condition == CONN_DIRTY;
		c->cancelled = 0;
		p->cancels += condition == CONN_DIRTY;
		conn_move_locked(p, c, CONN_DRAINING, now);
	} else {
		conn_move_locked(p, c, CONN_IDLE, now);
		pool_serve_locked(p, now);
	}
	bool tell = condition != CONN_CLEAN || closed || c->state == CONN_DRAINING;
	pthread_mutex_unlock(&p->lock);

	if (request && !closed)
		cancel_send(p->cancel, request);
	else
		cancel_request_free(&request);
	conn_free(&closed);
	if (tell)
		pool_wake(p);
}

int pool_cancel(struct pool *p, struct conn *c)
{
	struct cancel_request *request = cancel_request_new(c);
	if (!request)
		return -ENOMEM;
	pthread_mutex_lock(&p->lock);
	c->cancels++;
	p->cancels++;
	pthread_mutex_unlock(&p->lock);
	cancel_send(p->cancel, request);
	return 0;
}

void pool_close(struct pool *p, struct conn *c, bool was_lost)
{
	pthread_mutex_lock(&p->lock);
	conn_move_locked(p, c, CONN_CLOSED, clock_us());
	p->lost += was_lost;
	pthread_mutex_unlock(&p->lock);
	conn_free(&c);
}

/* ---- life ---------------------------------------------------------------------------- */

static void set_options_locked(struct pool *p, const struct pool_options *o)
{
	p->options = *o;
	p->options.url = NULL;
}

struct pool *pool_new(const struct pool_options *o)
{
	struct pool *p = xcalloc(1, sizeof *p);
	p->url = xstrdup(o->url);
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->interrupt = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ALWAYS(p->wake >= 0 && p->interrupt >= 0);
	pthread_mutex_init(&p->lock, NULL);
	for (int s = 0; s < CONN_STATES; s++)
		TAILQ_INIT(&p->list[s]);
	TAILQ_INIT(&p->waiters);
	set_options_locked(p, o);
	p->prepared_max = CONN_PREPARED_MAX;
	p->cancel = cancel_new(keeper_cancelled, p);
	return p;
}

int pool_start(struct pool *p)
{
	int r = cancel_start(p->cancel);
	if (r < 0)
		return r;
	r = pthread_create(&p->thread, NULL, keeper_run, p);
	p->started = r == 0;
	return -r;
}

void pool_configure(struct pool *p, const struct pool_options *o)
{
	pthread_mutex_lock(&p->lock);
	set_options_locked(p, o);
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
}

void pool_limit_prepared(struct pool *p, size_t statements)
{
	pthread_mutex_lock(&p->lock);
	p->prepared_max = MIN(statements, (size_t)CONN_PREPARED_MAX);
	pthread_mutex_unlock(&p->lock);
}

void pool_interrupt(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->refusing = true;
	pool_refuse_locked(p);
	pthread_mutex_unlock(&p->lock);
	raise_event(p->interrupt);
}

void pool_stop(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = p->refusing = true;
	pool_refuse_locked(p);
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
	if (p->started)
		pthread_join(p->thread, NULL);
	p->started = false;
	cancel_stop(p->cancel);

	static const enum conn_state ours[] = {CONN_CONNECTING, CONN_IDLE, CONN_DRAINING};
	for (size_t i = 0; i < ELEMENTSOF(ours); i++)
		while (!TAILQ_EMPTY(&p->list[ours[i]]))
			pool_close(p, TAILQ_FIRST(&p->list[ours[i]]), false);
}

void pool_free(struct pool **pp)
{
	struct pool *p = *pp;
	if (!p)
		return;
	*pp = NULL;
	ALWAYS(pool_total_locked(p) == 0);
	cancel_free(&p->cancel);
	close(p->wake);
	close(p->interrupt);
	pthread_mutex_destroy(&p->lock);
	free(p->url);
	free(p);
}

bool pool_is_up(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	bool up = !p->down;
	pthread_mutex_unlock(&p->lock);
	return up;
}

uint64_t pool_answered_us(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	uint64_t at = p->answered_us;
	pthread_mutex_unlock(&p->lock);
	return at;
}

void pool_hurry(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->attempt_us = 0;
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
}

void pool_stats(struct pool *p, struct pool_stats *ret)
{
	pthread_mutex_lock(&p->lock);
	*ret = (struct pool_stats){
	    .min = p->options.min,
	    .max = p->options.max,
	    .idle = p->count[CONN_IDLE],
	    .busy = p->count[CONN_BUSY],
	    .connecting = p->count[CONN_CONNECTING],
	    .draining = p->count[CONN_DRAINING],
	    .waiting = p->waiting,
	    .connects = p->connects,
	    .failures = p->failures,
	    .lost = p->lost,
	    .cancels = p->cancels,
	};
	pthread_mutex_unlock(&p->lock);
}
