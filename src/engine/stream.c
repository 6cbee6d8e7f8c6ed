#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>

#include "listener_impl.h"
#include "provost/delay.h"
#include "provost/log.h"

/*
 * Why an answer that is fresh is not older than three heartbeats, and what was told before is in.
 * A notification is put into PostgreSQL's queue in the order of the commits, and a session takes
 * it out in that order: when heartbeat N is back, all that was committed before N was sent has been
 * told, and its generations are raised. So trust is lent from the moment that N was *sent*. Its end
 * is that at which N + 1, which was sent an interval later, would be overdue; the lease ends by
 * itself, even if this thread is not run.
 */

enum {
	CONNECT_MAX_US = 2000000, /* the URL's connect_timeout may be less */
	LISTEN_MAX_US = 2000000,
	OVERDUE_MAX_US = 5000000, /* then the connection is given up */
	BACKOFF_BASE_US = 50000,  /* full jitter below a ceiling that doubles ... */
	BACKOFF_MAX_US = 1000000, /* ... up to this */
	DOWN_AFTER_US = 1000000,
	COMPLAIN_EVERY_US = 30000000,
	UNREADABLE_EVERY_US = 10000000,
	OVERDUE_EVERY_US = 10000000,
	TOKEN_BYTES = CHANGE_TOKEN_LEN / 2,
	BEATS_TO_OVERDUE = 2, /* intervals, from when it was sent */
	BEATS_OF_TRUST = 1 + BEATS_TO_OVERDUE,
};

/* A role, or a database, may have set limits for sessions that idle or wait, which this one does
 * all its life; and no heartbeat is worth waiting for a disk. */
/* Its name tells it from the pool's. */
static const char setup_sql[] =
    "/* provost */ SELECT pg_catalog.set_config(name,"
    " CASE name WHEN 'application_name' THEN setting || ' listener'"
    " WHEN 'synchronous_commit' THEN 'off' ELSE '0' END, false)"
    " FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'lock_timeout',"
    " 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit',"
    " 'application_name')";
static const char listen_sql[] = "/* provost */ LISTEN " CHANGE_CHANNEL;
static const char beat_sql[] =
    "/* provost */ SELECT pg_catalog.pg_notify('" CHANGE_CHANNEL "', $1)";

/* Whether `every` has passed since such a line was written, which it is now. */
static bool may_tell(uint64_t *told_us, uint64_t every, uint64_t now)
{
	if (*told_us && now - *told_us < every)
		return false;
	*told_us = now;
	return true;
}

static void tell(void (*what)(void *arg), void *arg)
{
	if (what)
		what(arg);
}

/* Nothing is fresh from `until_ms` on. */
static void lend(struct listener *l, uint64_t until_ms)
{
	generations_trust(l->generations, until_ms);
	atomic_store_explicit(&l->lease_us, until_ms * 1000, memory_order_relaxed);
}

/* ---- losing it ----------------------------------------------------------------------- */

static void plan_attempt(struct stream *t, uint64_t now)
{
	uint64_t ceiling =
	    MIN((uint64_t)BACKOFF_MAX_US, (uint64_t)BACKOFF_BASE_US << MIN(t->attempts, 10u));

	t->attempts++;
	t->attempt_us = now + jitter(ceiling);
	t->phase = PHASE_AWAY;
}

static void complain(struct listener *l, bool was_live, const char *why, uint64_t now)
{
	struct stream *t = &l->stream;

	if (was_live) {
		t->complained_us = 0;
		log_warn("listener: the stream of changes was lost; until it is back nothing is "
		         "stored or served as fresh",
		         LOGU("connection", t->connections), LOGS("reason", why));
	} else if (may_tell(&t->complained_us, COMPLAIN_EVERY_US, now)) {
		log_warn("listener: changes cannot be listened to; nothing is cached meanwhile",
		         LOGS("reason", why));
	}
}

/* Nothing is fresh from here on. */
static void lose(struct listener *l, const char *why, uint64_t now)
{
	struct stream *t = &l->stream;
	bool followed = t->phase == PHASE_FOLLOWING;

	lend(l, 0);
	syncs_set(&l->syncs, 0, false);
	complain(l, t->stats.state != LISTENER_CONNECTING, why, now);
	t->stats.state = LISTENER_CONNECTING;
	t->stats.gaps += followed;
	t->gap |= followed;
	conn_free(&t->conn);
	plan_attempt(t, now);
}

/* ---- heartbeats ---------------------------------------------------------------------- */

static void send_beat(struct listener *l, uint64_t interval_us)
{
	struct stream *t = &l->stream;
	char payload[sizeof "beat " + CHANGE_TOKEN_LEN + 24];
	const char *const values[] = {payload};

	/* Before it is sent: what is committed in between is not vouched for by it. */
	t->sent_us = clock_us();
	t->interval_us = interval_us;
	t->out = true;
	snprintf(payload, sizeof payload, "beat %s %" PRIu64, t->token, ++t->number);
	if (conn_send(t->conn, beat_sql, values, 1) < 0)
		lose(l, conn_error(t->conn), t->sent_us);
}

static void note_lag(struct stream *t, uint64_t lag_us)
{
	uint64_t max = 0;

	t->lag_us[t->lags++ % STREAM_LAGS] = lag_us;
	for (size_t i = 0; i < MIN(t->lags, (uint64_t)STREAM_LAGS); i++)
		max = MAX(max, t->lag_us[i]);
	t->stats.lag_us = lag_us;
	t->stats.lag_max_us = max;
}

static void go_live(struct listener *l)
{
	struct stream *t = &l->stream;

	if (t->stats.state == LISTENER_LIVE)
		return;
	log_info("listener: the stream of changes is live", LOGU("connection", t->connections));
	t->stats.state = LISTENER_LIVE;
	t->attempts = 0;
	t->complained_us = 0;
	syncs_set(&l->syncs, t->connections, false);
}

/* Where trust has ended meanwhile, reads were answered by the database, with changes that are yet
 * to be told: what was stored before must not come back for the time until they are. Requests read
 * their clocks themselves, and this thread may be held up, hence well before the end. */
static void renew_trust(struct listener *l, uint64_t now, uint64_t end_us)
{
	/* Relaxed: only this thread writes it. */
	uint64_t lent_us = atomic_load_explicit(&l->lease_us, memory_order_relaxed);

	bool late = now + l->stream.interval_us / 2 >= lent_us;

	if (late)
		generations_raise_epoch(l->generations);
	lend(l, end_us / 1000);
	/* Held up just here. */
	if (!late && clock_us() >= lent_us)
		generations_raise_epoch(l->generations);
}

/* Late or not: all that was committed before it was sent has been told. */
static void beat_back(struct listener *l)
{
	struct stream *t = &l->stream;
	uint64_t now = clock_us(), end_us = t->sent_us + BEATS_OF_TRUST * t->interval_us;

	t->out = false;
	note_lag(t, now - t->sent_us);
	/* Too late to say anything of now. The next is due. */
	if (now >= end_us)
		return;
	renew_trust(l, now, end_us);
	go_live(l);
}

static void go_overdue(struct listener *l, uint64_t now)
{
	struct stream *t = &l->stream;

	/* Before the first one it was not live, either. */
	if (t->stats.state != LISTENER_LIVE)
		return;
	if (may_tell(&t->overdue_us, OVERDUE_EVERY_US, now))
		log_warn("listener: a heartbeat is overdue; until it is back nothing is stored or "
		         "served as fresh",
		         LOGU("connection", t->connections));
	t->stats.state = LISTENER_OVERDUE;
	/* It has ended by itself, unless it was lent when heartbeats were rarer. */
	lend(l, 0);
	syncs_set(&l->syncs, t->connections, true);
}

/* ---- changes ------------------------------------------------------------------------- */

static void take_table(struct listener *l, const struct change *c)
{
	/* Now, that the change has come: see apply.h. */
	const struct catalog *catalog = (struct catalog *)snapshot_use(l->catalog);

	apply_change(l->generations, &l->stream.narrowings, catalog, c);
	l->stream.stats.changes++;
	if (l->sink.change)
		l->sink.change(l->sink.arg, c);
	if (!strcmp(c->table, "provost.api_key") || !strcmp(c->table, "provost.revocation"))
		tell(l->sink.identities, l->sink.arg);
}

static void take_beat(struct listener *l, const struct change *c, bool own)
{
	struct stream *t = &l->stream;

	if (!t->out || c->number != t->number || strcmp(c->token, t->token) != 0)
		return;
	if (own)
		beat_back(l);
	else
		t->pooled = true;
}

static void take_unreadable(struct listener *l)
{
	struct stream *t = &l->stream;

	generations_raise_epoch(l->generations);
	t->stats.unreadable++;
	if (may_tell(&t->unreadable_us, UNREADABLE_EVERY_US, clock_us()))
		log_warn("listener: a notification on the channel `" CHANGE_CHANNEL
		         "` is none of Provost's; everything stored was invalidated");
}

static void take(struct notify_sink *sink, const char *channel, const char *payload, bool own)
{
	struct listener *l =
	    (struct listener *)((char *)sink - offsetof(struct listener, stream.notify));
	_cleanup_change_ struct change c = {0};

	CHECK_MAGIC(l, LISTENER_MAGIC);
	if (strcmp(channel, CHANGE_CHANNEL) != 0)
		return;
	DELAY(DELAY_LISTEN);
	if (change_parse(payload, &c) < 0) {
		take_unreadable(l);
		return;
	}
	switch (c.kind) {
	case CHANGE_TABLE:
		take_table(l, &c);
		break;
	case CHANGE_SYNC:
		DELAY(DELAY_TOKEN);
		syncs_arrived(&l->syncs, c.token);
		break;
	case CHANGE_BEAT:
		take_beat(l, &c, own);
		break;
	case CHANGE_EPOCH:
		generations_raise_epoch(l->generations);
		l->stream.stats.epochs++;
		tell(l->sink.triggers, l->sink.arg);
		break;
	case CHANGE_EVENT:
		if (l->sink.event)
			l->sink.event(l->sink.arg, &c);
		break;
	}
}

/* ---- connecting ---------------------------------------------------------------------- */

static void begin(struct listener *l, uint64_t now)
{
	struct stream *t = &l->stream;
	unsigned char token[TOKEN_BYTES];

	randombytes_buf(token, sizeof token);
	sodium_bin2hex(t->token, sizeof t->token, token, sizeof token);
	t->number = 0;
	t->out = t->pooled = false;
	t->since_us = now;
	t->phase = PHASE_CONNECTING;
	/* What poolers refuse in a startup packet is not needed here. */
	t->conn = conn_begin(l->url, false, -1, (unsigned)++t->connections);
	if (!t->conn)
		lose(l, "out of memory", now);
}

static void listen_to(struct listener *l, uint64_t now)
{
	struct stream *t = &l->stream;

	t->phase = PHASE_LISTENING;
	t->since_us = now;
	if (conn_send(t->conn, setup_sql, NULL, 0) < 0 ||
	    conn_send(t->conn, listen_sql, NULL, 0) < 0)
		lose(l, conn_error(t->conn), now);
}

/* LISTEN has committed: what is committed from now on will be told, what was before may have been
 * missed. Nothing is trusted before a heartbeat came back. */
static void follow(struct listener *l, uint64_t interval_us)
{
	struct stream *t = &l->stream;
	bool gap = t->gap;

	generations_raise_epoch(l->generations);
	t->phase = PHASE_FOLLOWING;
	t->gap = false;
	send_beat(l, interval_us);
	tell(gap ? l->sink.gap : l->sink.began, l->sink.arg);
	tell(l->sink.identities, l->sink.arg);
	tell(l->sink.triggers, l->sink.arg);
}

static void advance(struct listener *l, uint64_t now)
{
	struct stream *t = &l->stream;
	int r = conn_advance(t->conn);

	if (r == 1)
		listen_to(l, now);
	else if (r < 0)
		lose(l, conn_error(t->conn), now);
}

static void receive(struct listener *l, uint64_t interval_us)
{
	struct stream *t = &l->stream;
	uint64_t raises = generations_raises(l->generations);
	int r = conn_receive(t->conn, &t->notify);

	if (generations_raises(l->generations) != raises)
		tell(l->sink.raised, l->sink.arg);
	if (t->pooled)
		lose(l,
		     "[database] listen_url leads through a pooler; it must be a direct "
		     "connection",
		     clock_us());
	else if (r < 0)
		lose(l, conn_error(t->conn), clock_us());
	else if (t->phase == PHASE_LISTENING && conn_outstanding(t->conn) == 0)
		follow(l, interval_us);
}

/* ---- time ---------------------------------------------------------------------------- */

/* When the connection, as it is, is given up. */
static uint64_t end_us(const struct stream *t)
{
	switch (t->phase) {
	case PHASE_CONNECTING:
		return t->since_us +
		       MIN(conn_connect_timeout_us(t->conn), (uint64_t)CONNECT_MAX_US);
	case PHASE_LISTENING:
		return t->since_us + LISTEN_MAX_US;
	case PHASE_FOLLOWING:
		return t->out ? t->sent_us + BEATS_TO_OVERDUE * t->interval_us + OVERDUE_MAX_US
		              : UINT64_MAX;
	default:
		return UINT64_MAX;
	}
}

/* When something else is to be done about it: an attempt, a heartbeat, or to note that one is
 * overdue. A shorter interval holds at once. */
static uint64_t due_us(const struct stream *t, uint64_t interval_us)
{
	if (t->phase == PHASE_AWAY)
		return t->attempt_us;
	if (t->phase != PHASE_FOLLOWING)
		return UINT64_MAX;
	if (!t->out)
		return t->sent_us + MIN(t->interval_us, interval_us);
	return t->stats.state == LISTENER_LIVE ? t->sent_us + BEATS_TO_OVERDUE * t->interval_us
	                                       : UINT64_MAX;
}

static void act(struct listener *l, uint64_t interval_us)
{
	struct stream *t = &l->stream;
	uint64_t now = clock_us();

	if (now >= end_us(t))
		lose(l,
		     t->phase == PHASE_FOLLOWING ? "a heartbeat did not come back"
		                                 : "no answer in time",
		     now);
	else if (now < due_us(t, interval_us))
		return;
	else if (t->phase == PHASE_AWAY)
		begin(l, now);
	else if (t->out)
		go_overdue(l, now);
	else
		send_beat(l, interval_us);
}

static int nap_ms(const struct listener *l, uint64_t interval_us)
{
	const struct stream *t = &l->stream;
	uint64_t now = clock_us();
	uint64_t at = MIN(end_us(t), due_us(t, interval_us));

	/* A refusal may be known before there is a descriptor to poll. */
	if (t->phase == PHASE_CONNECTING && conn_fd(t->conn) < 0)
		return 0;
	if (t->stats.state == LISTENER_CONNECTING && !t->stats.down_us)
		at = MIN(at, t->live_us + DOWN_AFTER_US);
	if (at <= now)
		return 0;
	return (int)MIN((at - now + 999) / 1000, (uint64_t)COMPLAIN_EVERY_US / 1000);
}

/* ---- the thread ---------------------------------------------------------------------- */

/* Makes known what has become of it. False: it is to stop. */
static bool publish(struct listener *l, uint64_t *ret_interval_us)
{
	struct stream *t = &l->stream;
	struct listener_stats *s = &t->stats;
	uint64_t now = clock_us();

	if (s->state == LISTENER_LIVE)
		t->live_us = now;
	bool down = s->state == LISTENER_OVERDUE ||
	            (s->state == LISTENER_CONNECTING && now - t->live_us >= DOWN_AFTER_US);
	if (!down)
		s->down_us = 0;
	else if (!s->down_us)
		s->down_us = now;
	atomic_store_explicit(&l->down_us, s->down_us, memory_order_relaxed);
	pthread_mutex_lock(&l->lock);
	l->stats = *s;
	*ret_interval_us = (uint64_t)l->heartbeat_ms * 1000;
	bool goes_on = !l->stopping;
	pthread_mutex_unlock(&l->lock);
	return goes_on;
}

static void turn(struct listener *l, uint64_t interval_us)
{
	struct stream *t = &l->stream;
	struct pollfd p[] = {
	    {.fd = l->wake, .events = POLLIN},
	    {.fd = t->conn ? conn_fd(t->conn) : -1, .events = t->conn ? conn_events(t->conn) : 0},
	};
	bool refused = t->phase == PHASE_CONNECTING && p[1].fd < 0;
	uint64_t count;

	if (poll(p, ELEMENTSOF(p), nap_ms(l, interval_us)) < 0)
		return;
	if (p[0].revents)
		(void)!read(l->wake, &count, sizeof count);
	/* What has come goes before what is late: it may be what was waited for. */
	if (t->phase == PHASE_CONNECTING && (p[1].revents || refused))
		advance(l, clock_us());
	else if (p[1].revents)
		receive(l, interval_us);
	act(l, interval_us);
}

void *stream_run(void *arg)
{
	struct listener *l = arg;
	struct stream *t = &l->stream;
	uint64_t interval_us;

	CHECK_MAGIC(l, LISTENER_MAGIC);
	pthread_setname_np(pthread_self(), "listener");
	t->notify.notified = take;
	t->live_us = clock_us();
	t->phase = PHASE_AWAY;
	while (publish(l, &interval_us))
		turn(l, interval_us);

	lend(l, 0);
	syncs_set(&l->syncs, 0, false);
	conn_free(&t->conn);
	t->stats.state = LISTENER_STOPPED;
	(void)publish(l, &interval_us);
	return NULL;
}
