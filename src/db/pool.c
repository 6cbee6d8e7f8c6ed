#include "provost/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#include "cancel.h"
#include "conn_impl.h"
#include "provost/log.h"

enum {
	CONNECT_TIMEOUT_MS = 5000,  /* of one attempt */
	BACKOFF_BASE_MS = 50,       /* full jitter below a ceiling that doubles ... */
	BACKOFF_MAX_MS = 1000,      /* ... up to this, so that a database is found again within it */
	CONNECTS_AT_ONCE = 4,       /* while they succeed; one while they fail */
	CHECK_INTERVAL_MS = 250,    /* between looks at idle connections */
	DRAIN_TIMEOUT_MS = 5000,    /* for a cancelled statement to end */
	IDLE_SURPLUS_MS = 60 * 1000, /* above min, unused for so long: closed */
	COMPLAIN_INTERVAL_MS = 30 * 1000,
	POLL_MAX = 1 + 1024, /* descriptors in one turn */
};

TAILQ_HEAD(conns, conn);

/* A borrower in the queue, on its own stack. */
struct waiter {
	TAILQ_ENTRY(waiter) link;
	pthread_cond_t served;
	struct conn *conn;
	bool done; /* off the queue: served, or told that there is none */
};

struct pool {
	char *url;
	pthread_t thread;
	bool started;
	int wake; /* eventfd */
	struct cancel *cancel;

	pthread_mutex_t lock; /* guards everything below, and the pool's part of each conn */
	struct pool_options options; /* without url */
	struct conns list[CONN_STATES]; /* IDLE: most recently used first */
	unsigned count[CONN_STATES];
	TAILQ_HEAD(, waiter) waiters;
	unsigned waiting;
	unsigned numbers;   /* given to connections so far */
	unsigned attempts;  /* failed in a row */
	uint64_t attempt_us; /* not before then */
	uint64_t complained_us;
	bool down;
	bool stopping;
	uint64_t connects, failures, lost, cancels;
};

static void pool_wake(struct pool *p)
{
	uint64_t one = 1;
	while (write(p->wake, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* ---- states ----------------------------------------------------------------------------------- */

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

/* The only place where a connection changes its state. */
static void conn_move_locked(struct pool *p, struct conn *c, enum conn_state to, uint64_t now_us)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	ALWAYS(may_move(c->state, to));
	TAILQ_REMOVE(&p->list[c->state], c, link);
	p->count[c->state]--;
	c->state = to;
	c->since_us = now_us;
	if (to == CONN_CLOSED)
		return; /* the caller frees it, outside the lock */
	TAILQ_INSERT_HEAD(&p->list[to], c, link);
	p->count[to]++;
}

static unsigned total_locked(const struct pool *p)
{
	return p->count[CONN_CONNECTING] + p->count[CONN_IDLE] + p->count[CONN_BUSY] +
	       p->count[CONN_DRAINING];
}

/* Connections that serve, or will once their cancelled statement has ended. */
static unsigned alive_locked(const struct pool *p)
{
	return p->count[CONN_IDLE] + p->count[CONN_BUSY] + p->count[CONN_DRAINING];
}

/* ---- borrowers -------------------------------------------------------------------------------- */

static void waiter_end_locked(struct pool *p, struct waiter *w, struct conn *c)
{
	TAILQ_REMOVE(&p->waiters, w, link);
	p->waiting--;
	w->conn = c;
	w->done = true;
	pthread_cond_signal(&w->served);
}

/* Serves the borrowers in the order in which they came. */
static void serve_locked(struct pool *p, uint64_t now_us)
{
	struct conn *c;
	struct waiter *w;
	while ((w = TAILQ_FIRST(&p->waiters)) && (c = TAILQ_FIRST(&p->list[CONN_IDLE]))) {
		conn_move_locked(p, c, CONN_BUSY, now_us);
		waiter_end_locked(p, w, c);
	}
}

static void refuse_waiters_locked(struct pool *p)
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
	return p->stopping ? -ESHUTDOWN : -ENOTCONN;
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
	if (p->stopping)
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

/* Whether the other side has said goodbye, or anything, while the connection was idle. */
static bool has_input(const struct conn *c)
{
	struct pollfd f = {.fd = conn_fd(c), .events = POLLIN};
	return poll(&f, 1, 0) != 0;
}

int pool_acquire(struct pool *p, bool verify, struct conn **ret)
{
	struct conn *c = NULL;
	int r;
	while ((r = acquire(p, &c)) == 0 && verify && has_input(c) &&
	       conn_drain(c) != CONN_CLEAN)
		pool_release(p, &c);
	if (r == 0)
		*ret = c;
	return r;
}

static bool surplus_locked(const struct pool *p, const struct conn *c, uint64_t now_us)
{
	return p->stopping || total_locked(p) > p->options.max ||
	       (c->expires_us && now_us >= c->expires_us) || c->prepareds >= CONN_PREPARED_MAX ||
	       c->prepare != p->options.prepare;
}

void pool_release(struct pool *p, struct conn **cp)
{
	struct conn *c = *cp, *closed = NULL;
	struct cancel_request *request = NULL;
	*cp = NULL;
	enum conn_condition condition = conn_condition(c);
	if (condition == CONN_DIRTY && !(request = cancel_request_new(c)))
		condition = CONN_BROKEN;

	uint64_t now = clock_us();
	pthread_mutex_lock(&p->lock);
	if (condition == CONN_BROKEN)
		p->lost++;
	if (condition == CONN_BROKEN || (condition == CONN_CLEAN && surplus_locked(p, c, now)) ||
	    p->stopping) {
		conn_move_locked(p, c, CONN_CLOSED, now);
		closed = c;
	} else if (condition == CONN_DIRTY) {
		c->cancelling = true;
		p->cancels++;
		conn_move_locked(p, c, CONN_DRAINING, now);
	} else {
		conn_move_locked(p, c, CONN_IDLE, now);
		serve_locked(p, now);
	}
	bool tell = condition != CONN_CLEAN || closed;
	pthread_mutex_unlock(&p->lock);

	if (request && !closed)
		cancel_send(p->cancel, request);
	else
		cancel_request_free(&request);
	conn_free(&closed);
	if (tell)
		pool_wake(p);
}

/* ---- the pool's thread: connecting ------------------------------------------------------------ */

static void complain(struct pool *p, const char *why, bool down, uint64_t now_us)
{
	if (down)
		log_error("pool: the database cannot be reached", LOGS("reason", why));
	else
		log_warn("pool: a connection could not be established", LOGS("reason", why));
	p->complained_us = now_us;
}

static void note_failure(struct pool *p, const char *why, uint64_t now_us)
{
	pthread_mutex_lock(&p->lock);
	p->failures++;
	uint64_t ceiling = MIN((uint64_t)BACKOFF_MAX_MS, (uint64_t)BACKOFF_BASE_MS
								 << MIN(p->attempts, 10u));
	p->attempts++;
	p->attempt_us = now_us + jitter(ceiling * 1000);
	bool was_down = p->down;
	p->down = alive_locked(p) == 0;
	bool down = p->down;
	if (down)
		refuse_waiters_locked(p);
	bool say = (down && !was_down) || !p->complained_us ||
		   now_us - p->complained_us >= COMPLAIN_INTERVAL_MS * 1000u;
	pthread_mutex_unlock(&p->lock);
	if (say)
		complain(p, why, down, now_us);
}

static uint64_t lifetime_us(const struct pool *p)
{
	uint64_t us = (uint64_t)p->options.max_lifetime_ms * 1000;
	return us - jitter(us / 10);
}

static void note_success(struct pool *p, struct conn *c, uint64_t now_us)
{
	pthread_mutex_lock(&p->lock);
	bool was_down = p->down;
	p->connects++;
	p->attempts = 0;
	p->attempt_us = 0;
	p->down = false;
	p->complained_us = 0;
	c->expires_us = p->options.max_lifetime_ms ? now_us + lifetime_us(p) : 0;
	conn_move_locked(p, c, CONN_IDLE, now_us);
	serve_locked(p, now_us);
	pthread_mutex_unlock(&p->lock);
	if (was_down)
		log_info("pool: the database is back", LOGU("connection", c->number));
	else
		log_debug("pool: connected", LOGU("connection", c->number));
}

/* How many connections to begin now. */
static unsigned wanted_locked(const struct pool *p, uint64_t now_us)
{
	unsigned total = total_locked(p), connecting = p->count[CONN_CONNECTING];
	unsigned at_once = p->attempts ? 1 : CONNECTS_AT_ONCE;
	unsigned want = 0;
	if (p->stopping || now_us < p->attempt_us || connecting >= at_once)
		return 0;
	if (total < p->options.min)
		want = p->options.min - total;
	if (p->waiting > connecting)
		want = MAX(want, p->waiting - connecting);
	if (p->down && connecting == 0)
		want = MAX(want, 1u);
	if (total >= p->options.max)
		return 0;
	return MIN(MIN(want, p->options.max - total), at_once - connecting);
}

static void connect_some(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	unsigned n = wanted_locked(p, clock_us());
	bool prepare = p->options.prepare;
	pthread_mutex_unlock(&p->lock);

	for (; n > 0; n--) {
		struct conn *c = conn_begin(p->url, prepare, ++p->numbers);
		if (!c) {
			note_failure(p, "out of memory", clock_us());
			return;
		}
		pthread_mutex_lock(&p->lock);
		c->state = CONN_CONNECTING;
		c->since_us = clock_us();
		TAILQ_INSERT_HEAD(&p->list[CONN_CONNECTING], c, link);
		p->count[CONN_CONNECTING]++;
		pthread_mutex_unlock(&p->lock);
	}
}

static void close_conn(struct pool *p, struct conn *c, bool was_lost)
{
	pthread_mutex_lock(&p->lock);
	conn_move_locked(p, c, CONN_CLOSED, clock_us());
	p->lost += was_lost;
	pthread_mutex_unlock(&p->lock);
	conn_free(&c);
}

static void advance_connecting(struct pool *p, struct conn *c, bool is_ready)
{
	uint64_t now = clock_us();
	/* A refusal may be known before there is a descriptor to poll. */
	int r = is_ready || conn_fd(c) < 0 ? conn_advance(c) : 0;
	if (r == 1) {
		note_success(p, c, now);
		return;
	}
	bool late = now - c->since_us >= CONNECT_TIMEOUT_MS * 1000u;
	if (r == 0 && !late)
		return;
	char why[512];
	snprintf(why, sizeof why, "%s", late ? "no answer in time" : conn_error(c));
	close_conn(p, c, false);
	note_failure(p, why, now);
}

/* ---- the pool's thread: draining -------------------------------------------------------------- */

/* A cancel request has been delivered or given up; called by the canceller. The connection may have
 * been closed meanwhile, which is why it is looked up by its number. */
static void cancelled(void *arg, unsigned number)
{
	struct pool *p = arg;
	struct conn *c;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH(c, &p->list[CONN_DRAINING], link)
		if (c->number == number)
			c->cancelling = false;
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
}

static void advance_draining(struct pool *p, struct conn *c, bool is_ready)
{
	uint64_t now = clock_us();
	enum conn_condition condition = is_ready ? conn_drain(c) : conn_condition(c);
	pthread_mutex_lock(&p->lock);
	bool cancelling = c->cancelling;
	bool back = condition == CONN_CLEAN && !cancelling;
	if (back && !surplus_locked(p, c, now)) {
		conn_move_locked(p, c, CONN_IDLE, now);
		serve_locked(p, now);
		c = NULL;
	}
	pthread_mutex_unlock(&p->lock);
	if (!c)
		return;
	bool late = now - c->since_us >= DRAIN_TIMEOUT_MS * 1000u;
	if (late)
		log_warn("pool: a cancelled statement did not end; its connection is closed",
			 LOGU("connection", c->number));
	if (late || back || condition == CONN_BROKEN)
		close_conn(p, c, !back);
}

/* ---- the pool's thread: idle connections ------------------------------------------------------ */

/* Takes surplus and expired connections out, one at a time. */
static struct conn *take_surplus(struct pool *p)
{
	struct conn *c;
	uint64_t now = clock_us();
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH_REVERSE(c, &p->list[CONN_IDLE], conns, link)
	{
		bool unused = total_locked(p) > p->options.min &&
			      now - c->since_us >= IDLE_SURPLUS_MS * 1000u;
		if (!unused && !surplus_locked(p, c, now))
			continue;
		conn_move_locked(p, c, CONN_CLOSED, now);
		break;
	}
	pthread_mutex_unlock(&p->lock);
	return c;
}

/* Borrows the idle connection of that number, if it still is idle. */
static struct conn *borrow(struct pool *p, unsigned number)
{
	struct conn *c;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH(c, &p->list[CONN_IDLE], link)
		if (c->number == number)
			break;
	if (c)
		conn_move_locked(p, c, CONN_BUSY, clock_us());
	pthread_mutex_unlock(&p->lock);
	return c;
}

static void check_idle(struct pool *p)
{
	struct pollfd fd[POLL_MAX];
	unsigned number[POLL_MAX];
	nfds_t n = 0;
	struct conn *c;

	while ((c = take_surplus(p)))
		conn_free(&c);

	/* The descriptors are looked at outside the lock; a stale one says nothing worse than that
	 * somebody else's socket is readable. */
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH(c, &p->list[CONN_IDLE], link)
	{
		if (n == POLL_MAX)
			break;
		fd[n] = (struct pollfd){.fd = conn_fd(c), .events = POLLIN};
		number[n++] = c->number;
	}
	pthread_mutex_unlock(&p->lock);

	if (n == 0 || poll(fd, n, 0) <= 0)
		return;
	for (nfds_t i = 0; i < n; i++) {
		if (!fd[i].revents || !(c = borrow(p, number[i])))
			continue;
		if (conn_drain(c) == CONN_BROKEN)
			log_info("pool: an idle connection was closed by the server",
				 LOGU("connection", c->number));
		pool_release(p, &c);
	}
}

/* ---- the pool's thread ------------------------------------------------------------------------ */

/* Milliseconds until connecting may be tried again, at most the check interval. */
static int nap_ms(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	uint64_t now = clock_us(), at = p->attempt_us;
	pthread_mutex_unlock(&p->lock);
	if (at <= now)
		return CHECK_INTERVAL_MS;
	return (int)MIN((at - now) / 1000 + 1, (uint64_t)CHECK_INTERVAL_MS);
}

/* Only this thread takes connections off the CONNECTING and DRAINING lists, so those collected here
 * stay alive without the lock. */
static void turn(struct pool *p)
{
	static const enum conn_state mine[] = {CONN_CONNECTING, CONN_DRAINING};
	struct pollfd fd[POLL_MAX];
	struct conn *conn[POLL_MAX];
	nfds_t n = 1;
	struct conn *c;

	connect_some(p);
	fd[0] = (struct pollfd){.fd = p->wake, .events = POLLIN};
	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < ELEMENTSOF(mine); i++) {
		TAILQ_FOREACH(c, &p->list[mine[i]], link)
		{
			if (n == POLL_MAX)
				break;
			fd[n] = (struct pollfd){.fd = conn_fd(c), .events = conn_events(c)};
			conn[n++] = c;
		}
	}
	pthread_mutex_unlock(&p->lock);

	bool refused = false;
	for (nfds_t i = 1; i < n; i++)
		refused |= fd[i].fd < 0;
	if (poll(fd, n, refused ? 0 : nap_ms(p)) < 0)
		return;
	if (fd[0].revents) {
		uint64_t count;
		while (read(p->wake, &count, sizeof count) < 0 && errno == EINTR)
			;
	}
	for (nfds_t i = 1; i < n; i++) {
		if (conn[i]->state == CONN_CONNECTING)
			advance_connecting(p, conn[i], fd[i].revents);
		else
			advance_draining(p, conn[i], fd[i].revents);
	}
	check_idle(p);
}

static void *run(void *arg)
{
	struct pool *p = arg;
	pthread_setname_np(pthread_self(), "pool");
	for (;;) {
		pthread_mutex_lock(&p->lock);
		bool stopping = p->stopping;
		pthread_mutex_unlock(&p->lock);
		if (stopping)
			return NULL;
		turn(p);
	}
}

/* ---- life ------------------------------------------------------------------------------------- */

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
	ALWAYS(p->wake >= 0);
	pthread_mutex_init(&p->lock, NULL);
	for (int s = 0; s < CONN_STATES; s++)
		TAILQ_INIT(&p->list[s]);
	TAILQ_INIT(&p->waiters);
	set_options_locked(p, o);
	p->cancel = cancel_new(cancelled, p);
	return p;
}

int pool_start(struct pool *p)
{
	int r = cancel_start(p->cancel);
	if (r < 0)
		return r;
	r = pthread_create(&p->thread, NULL, run, p);
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

void pool_stop(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	refuse_waiters_locked(p);
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
	if (p->started)
		pthread_join(p->thread, NULL);
	p->started = false;
	cancel_stop(p->cancel);

	static const enum conn_state ours[] = {CONN_CONNECTING, CONN_IDLE, CONN_DRAINING};
	for (size_t i = 0; i < ELEMENTSOF(ours); i++)
		while (!TAILQ_EMPTY(&p->list[ours[i]]))
			close_conn(p, TAILQ_FIRST(&p->list[ours[i]]), false);
}

void pool_free(struct pool **pp)
{
	struct pool *p = *pp;
	if (!p)
		return;
	*pp = NULL;
	ALWAYS(total_locked(p) == 0);
	cancel_free(&p->cancel);
	close(p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p->url);
	free(p);
}

bool pool_is_up(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	bool up = !p->down && alive_locked(p) > 0;
	pthread_mutex_unlock(&p->lock);
	return up;
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
