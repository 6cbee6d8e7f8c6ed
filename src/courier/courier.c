#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/eventfd.h>

#include "courier_impl.h"
#include "provost/conn.h"
#include "provost/log.h"

enum {
	CONNECT_US = 2000000,
	BACKOFF_BASE_US = 50000, /* full jitter below a ceiling that doubles ... */
	BACKOFF_MAX_US = 1000000,
	REFUSED_US = 10000000, /* until somebody may have done something about it */
	COMPLAIN_EVERY_US = 30000000,
	COMPLAIN_REFUSED_US = 600000000,
	PURGE_SHARE = 4, /* of the age, between two purges, */
	PURGE_MIN_US = 1000000,
	PURGE_MAX_US = 60000000,
};

/* ---- the connection ------------------------------------------------------------------ */

static void complain(struct courier *c, const char *why, uint64_t every_us, uint64_t now)
{
	if (c->complained_us && now - c->complained_us < every_us)
		return;
	c->complained_us = now;
	log_warn("courier: what is published and kept for users waits", LOGS("reason", why));
}

static void note_connected(struct courier *c, bool connected)
{
	pthread_mutex_lock(&c->lock);
	c->stats.connected = connected;
	pthread_mutex_unlock(&c->lock);
}

static void give_up(struct courier *c, const char *why, uint64_t wait_us)
{
	uint64_t now = clock_us();

	complain(c, why, wait_us < REFUSED_US ? COMPLAIN_EVERY_US : COMPLAIN_REFUSED_US, now);
	conn_free(&c->conn);
	note_connected(c, false);
	c->attempt_us = now + wait_us;
}

static uint64_t backoff_us(struct courier *c)
{
	uint64_t ceiling =
	    MIN((uint64_t)BACKOFF_MAX_US, (uint64_t)BACKOFF_BASE_US << MIN(c->attempts, 10u));

	c->attempts++;
	return jitter(ceiling);
}

/* One that ended while it was not used is replaced at once. */
static bool connect_to(struct courier *c)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	if (c->conn && conn_drain(c->conn) != CONN_CLEAN)
		conn_free(&c->conn);
	if (c->conn)
		return true;
	if (clock_us() < c->attempt_us)
		return false;
	c->conn = conn_open(c->url, false, c->stop_fd, clock_us() + CONNECT_US, errs);
	if (c->conn && outbox_name_session(c) < 0)
		conn_free(&c->conn);
	if (c->conn)
		note_connected(c, true);
	else
		give_up(c, errors_count(errs) ? errors_text(errs, 0) : "the connection was lost",
		        backoff_us(c));
	return c->conn;
}

/* What became of a statement. False: nothing more is done on this connection. */
static bool is_good(struct courier *c, int r)
{
	if (r == 0)
		return true;
	if (r == -ENOENT)
		give_up(
		    c,
		    "the schema `provost` is not in the database, or of an earlier version: run "
		    "`provost schema install` as the owner of the database",
		    REFUSED_US);
	else if (r == -EACCES)
		give_up(
		    c,
		    "this role may not read what is published: as the owner of the database, run "
		    "what `provost grants print` prints",
		    REFUSED_US);
	else
		give_up(c, c->conn ? conn_error(c->conn) : strerror(-r), backoff_us(c));
	return false;
}

/* ---- purging ------------------------------------------------------------------------- */

static uint64_t purge_every_us(int64_t age_ms)
{
	uint64_t us = (uint64_t)age_ms * 1000 / PURGE_SHARE;

	return MIN(MAX(us, (uint64_t)PURGE_MIN_US), (uint64_t)PURGE_MAX_US);
}

/* A batch; the rest when there is nothing else to do. */
static int purge(struct courier *c)
{
	uint64_t purged = 0, kept = 0, now = clock_us();
	bool more = false;
	int64_t age_ms;
	int r;

	pthread_mutex_lock(&c->lock);
	age_ms = c->outbox_age_ms;
	pthread_mutex_unlock(&c->lock);
	if (now < c->purged_us + purge_every_us(age_ms))
		return 0;
	r = outbox_purge(c, age_ms, &purged, &more);
	if (r == 0 && !more)
		r = outbox_count(c, &kept);
	/* Also where it cannot be done: it is not for that that a connection is tried for. */
	if (r < 0 || !more)
		c->purged_us = now;
	pthread_mutex_lock(&c->lock);
	c->stats.purged += purged;
	if (r == 0 && !more)
		c->stats.kept = kept;
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* ---- the thread ---------------------------------------------------------------------- */

/* When there is something to do that needs the connection. */
static uint64_t work_us_locked(const struct courier *c)
{
	if (!STAILQ_EMPTY(&c->acks) || !STAILQ_EMPTY(&c->loads) || !STAILQ_EMPTY(&c->parcels))
		return 0;
	return MIN(parcels_key_due_us_locked(c), c->purged_us + purge_every_us(c->outbox_age_ms));
}

static uint64_t due_us_locked(const struct courier *c)
{
	uint64_t at = work_us_locked(c);

	if (!c->conn)
		at = MAX(at, c->attempt_us);
	if (!STAILQ_EMPTY(&c->acks))
		at = MIN(at, STAILQ_FIRST(&c->acks)->until_us);
	return at;
}

/* False: it is to stop. */
static bool await_work(struct courier *c)
{
	bool goes_on;

	pthread_mutex_lock(&c->lock);
	while ((goes_on = !c->stopping)) {
		uint64_t at = due_us_locked(c);
		struct timespec t = {.tv_sec = (time_t)(at / 1000000),
		                     .tv_nsec = (long)(at % 1000000) * 1000};
		if (at <= clock_us())
			break;
		pthread_cond_timedwait(&c->news, &c->lock, &t);
	}
	pthread_mutex_unlock(&c->lock);
	return goes_on;
}

static void turn(struct courier *c)
{
	static int (*const serve[])(struct courier * c) = {
	    orders_serve_acks, parcels_serve_key, parcels_serve, orders_serve_loads, purge,
	};

	orders_expire(c, clock_us());
	if (!connect_to(c))
		return;
	for (size_t i = 0; i < ELEMENTSOF(serve); i++)
		if (!is_good(c, serve[i](c)))
			return;
	c->attempts = 0;
	c->complained_us = 0;
}

static void *run(void *arg)
{
	struct courier *c = arg;

	CHECK_MAGIC(c, COURIER_MAGIC);
	pthread_setname_np(pthread_self(), "courier");
	while (await_work(c))
		turn(c);
	conn_free(&c->conn);
	return NULL;
}

/* ---- life ---------------------------------------------------------------------------- */

struct courier *courier_new(const struct courier_options *o, struct hub *hub)
{
	struct courier *c = xcalloc(1, sizeof *c);
	pthread_condattr_t monotonic;

	c->magic = COURIER_MAGIC;
	c->url = xstrdup(o->url);
	c->hub = hub;
	c->outbox_age_ms = o->outbox_age_ms;
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ALWAYS(c->stop_fd >= 0);
	STAILQ_INIT(&c->parcels);
	STAILQ_INIT(&c->loads);
	STAILQ_INIT(&c->acks);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&c->news, &monotonic);
	pthread_condattr_destroy(&monotonic);
	hub_set_keeper(hub, &(struct hub_keeper){.load = orders_load, .ack = orders_ack, .arg = c});
	return c;
}

int courier_start(struct courier *c)
{
	CHECK_MAGIC(c, COURIER_MAGIC);
	c->purged_us = clock_us();
	int r = -pthread_create(&c->thread, NULL, run, c);
	c->started = r == 0;
	return r;
}

void courier_configure(struct courier *c, const struct courier_options *o)
{
	CHECK_MAGIC(c, COURIER_MAGIC);
	pthread_mutex_lock(&c->lock);
	c->outbox_age_ms = o->outbox_age_ms;
	pthread_cond_signal(&c->news);
	pthread_mutex_unlock(&c->lock);
}

void courier_stop(struct courier *c)
{
	const uint64_t one = 1;

	CHECK_MAGIC(c, COURIER_MAGIC);
	if (!c->started)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_signal(&c->news);
	pthread_mutex_unlock(&c->lock);
	ALWAYS(write(c->stop_fd, &one, sizeof one) == sizeof one);
	pthread_join(c->thread, NULL);
	c->started = false;
}

void courier_free(struct courier **cp)
{
	struct courier *c = *cp;

	if (!c)
		return;
	CHECK_MAGIC(c, COURIER_MAGIC);
	ALWAYS(!c->started);
	*cp = NULL;
	parcels_drop(&c->parcels);
	orders_done(c);
	OPENSSL_cleanse(c->key, sizeof c->key);
	pthread_cond_destroy(&c->news);
	pthread_mutex_destroy(&c->lock);
	close(c->stop_fd);
	free(c->url);
	c->magic = 0;
	free(c);
}

/* ---- looking ------------------------------------------------------------------------- */

void courier_stats(struct courier *c, struct courier_stats *ret)
{
	CHECK_MAGIC(c, COURIER_MAGIC);
	pthread_mutex_lock(&c->lock);
	*ret = c->stats;
	ret->waiting = c->parcel_count;
	pthread_mutex_unlock(&c->lock);
}
