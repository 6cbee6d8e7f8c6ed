#include <errno.h>
#include <poll.h>

#include "pool_impl.h"
#include "provost/log.h"

enum {
	BACKOFF_BASE_MS = 50,    /* full jitter below a ceiling that doubles ... */
	BACKOFF_MAX_MS = 1000,   /* ... up to this, so that a database is found again within it */
	CONNECTS_AT_ONCE = 4,    /* while they succeed; one while they fail */
	CHECK_INTERVAL_MS = 250, /* between looks at idle connections */
	DRAIN_TIMEOUT_MS = 5000, /* for a cancelled statement to end */
	DRAIN_INTERVAL_MS = 50,  /* between looks while one is to end */
	CANCEL_BASE_MS = 100,    /* until it is cancelled again, which doubles ... */
	CANCEL_MAX_MS = 400,     /* ... up to this */
	IDLE_SURPLUS_MS = 60 * 1000, /* above min, unused for so long: closed */
	COMPLAIN_INTERVAL_MS = 30 * 1000,
	POLL_MAX = 1 + 1024, /* descriptors in one turn */
};

/* ---- connecting ---------------------------------------------------------------------- */

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
	uint64_t ceiling =
	    MIN((uint64_t)BACKOFF_MAX_MS, (uint64_t)BACKOFF_BASE_MS << MIN(p->attempts, 10u));
	p->attempts++;
	p->attempt_us = now_us + jitter(ceiling * 1000);
	bool was_down = p->down;
	p->down = pool_alive_locked(p) == 0;
	bool down = p->down;
	if (down)
		pool_refuse_locked(p);
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

/* Gives a connection that was established to those who wait: it is not ours any more. */
static void note_success(struct pool *p, struct conn *c, uint64_t now_us)
{
	unsigned number = c->number;
	pthread_mutex_lock(&p->lock);
	bool was_down = p->down;
	p->connects++;
	p->attempts = 0;
	p->attempt_us = 0;
	p->down = false;
	p->complained_us = 0;
	c->expires_us = p->options.max_lifetime_ms ? now_us + lifetime_us(p) : 0;
	conn_move_locked(p, c, CONN_IDLE, now_us);
	pool_serve_locked(p, now_us);
	pthread_mutex_unlock(&p->lock);
	if (was_down)
		log_info("pool: the database is back", LOGU("connection", number));
	else
		log_debug("pool: connected", LOGU("connection", number));
}

/* How many connections to begin now. */
static unsigned wanted_locked(const struct pool *p, uint64_t now_us)
{
	unsigned total = pool_total_locked(p), connecting = p->count[CONN_CONNECTING];
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
		struct conn *c = conn_begin(p->url, prepare, p->interrupt, ++p->numbers);
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

static void advance_connecting(struct pool *p, struct conn *c, bool is_ready)
{
	uint64_t now = clock_us();
	/* A refusal may be known before there is a descriptor to poll. */
	int r = is_ready || conn_fd(c) < 0 ? conn_advance(c) : 0;
	if (r == 1) {
		note_success(p, c, now);
		return;
	}
	bool late = now - c->since_us >= conn_connect_timeout_us(c);
	if (r == 0 && !late)
		return;
	char why[512];
	snprintf(why, sizeof why, "%s", late ? "no answer in time" : conn_error(c));
	pool_close(p, c, false);
	note_failure(p, why, now);
}

/* ---- draining ------------------------------------------------------------------------ */

static void note_cancelled_locked(struct pool *p, enum conn_state state, unsigned number,
                                  uint64_t now_us)
{
	struct conn *c;
	TAILQ_FOREACH (c, &p->list[state], link) {
		if (c->number != number)
			continue;
		uint64_t ms = (uint64_t)CANCEL_BASE_MS << MIN(c->cancelled, 10u);
		c->cancels--;
		c->cancelled++;
		c->cancel_us = now_us + MIN(ms, (uint64_t)CANCEL_MAX_MS) * 1000;
	}
}

/* A cancel request has been delivered or given up; called by the canceller. The connection may have
 * been closed meanwhile, which is why it is looked up by its number. */
void keeper_cancelled(void *arg, unsigned number)
{
	struct pool *p = arg;
	uint64_t now = clock_us();
	pthread_mutex_lock(&p->lock);
	note_cancelled_locked(p, CONN_BUSY, number, now);
	note_cancelled_locked(p, CONN_DRAINING, number, now);
	pthread_mutex_unlock(&p->lock);
	pool_wake(p);
}

/* A backend drops a cancel that reaches it between two messages: before it has read the statement,
 * or between two that were sent together. So the request is repeated for as long as there is
 * something to end; at once for what follows a statement that has ended, since that one begins. */
static void cancel_again(struct pool *p, struct conn *c, bool has_moved, uint64_t now_us)
{
	pthread_mutex_lock(&p->lock);
	if (has_moved)
		c->cancelled = 0;
	bool due = c->cancels == 0 && (has_moved || now_us >= c->cancel_us);
	pthread_mutex_unlock(&p->lock);
	if (due && pool_cancel(p, c) < 0)
		log_warn("pool: no memory to cancel a statement", LOGU("connection", c->number));
}

static void advance_draining(struct pool *p, struct conn *c, bool is_ready)
{
	uint64_t now = clock_us();
	size_t before = c->next;
	enum conn_condition condition = is_ready ? conn_drain(c) : conn_condition(c);
	if (condition == CONN_DIRTY)
		cancel_again(p, c, c->next != before, now);
	pthread_mutex_lock(&p->lock);
	bool back = condition == CONN_CLEAN && c->cancels == 0;
	if (back && !pool_surplus_locked(p, c, now)) {
		conn_move_locked(p, c, CONN_IDLE, now);
		pool_serve_locked(p, now);
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
		pool_close(p, c, !back);
}

/* ---- idle connections ---------------------------------------------------------------- */

/* Takes surplus and expired connections out, one at a time. */
static struct conn *take_surplus(struct pool *p)
{
	struct conn *c;
	uint64_t now = clock_us();
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH_REVERSE(c, &p->list[CONN_IDLE], conns, link)
	{
		bool unused = pool_total_locked(p) > p->options.min &&
		              now - c->since_us >= IDLE_SURPLUS_MS * 1000u;
		if (!unused && !pool_surplus_locked(p, c, now))
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
	TAILQ_FOREACH (c, &p->list[CONN_IDLE], link)
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
	 * somebody else's socket is readable, and who is borrowed is looked at again. */
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH (c, &p->list[CONN_IDLE], link) {
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
		if (pool_was_closed(c))
			log_info("pool: an idle connection was closed by the server",
			         LOGU("connection", c->number));
		pool_release(p, &c);
	}
}

/* ---- the thread ---------------------------------------------------------------------- */

/* Milliseconds until connecting may be tried again, at most the interval of what is looked at. */
static int nap_ms(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	uint64_t now = clock_us(), at = p->attempt_us;
	uint64_t most = p->count[CONN_DRAINING] ? DRAIN_INTERVAL_MS : CHECK_INTERVAL_MS;
	pthread_mutex_unlock(&p->lock);
	return (int)(at <= now ? most : MIN((at - now) / 1000 + 1, most));
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
		TAILQ_FOREACH (c, &p->list[mine[i]], link) {
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

void *keeper_run(void *arg)
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
