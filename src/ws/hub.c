#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "durable.h"
#include "hub_impl.h"
#include "provost/auth.h"
#include "provost/log.h"
#include "topics.h"

enum {
	UNIDENTIFIED_SHARE = 8, /* of max_clients, an eighth may be nobody yet */
	UNIDENTIFIED_MIN = 16,
	RETRY_MS = 500,          /* the earliest to come back after a bye */
	RETRY_PER_CLIENT_MS = 2, /* what the latest is later by, for each who was there */
	RETRY_SPREAD_MIN_MS = 1000,
};

/* ---- options ------------------------------------------------------------------------- */

static void list_copy(struct strlist *to, const struct strlist *from)
{
	*to = (struct strlist){0};
	for (size_t i = 0; i < from->count; i++)
		strlist_add(to, from->item[i], strlen(from->item[i]));
}

void hub_options_copy(struct hub_options *to, const struct hub_options *from)
{
	*to = *from;
	to->room = from->rooms ? xcalloc(from->rooms, sizeof *to->room) : NULL;
	for (size_t i = 0; i < from->rooms; i++) {
		to->room[i].name = xstrdup(from->room[i].name);
		list_copy(&to->room[i].roles, &from->room[i].roles);
	}
}

void hub_options_done(struct hub_options *o)
{
	for (size_t i = 0; i < o->rooms; i++) {
		free(o->room[i].name);
		strlist_done(&o->room[i].roles);
	}
	free(o->room);
	*o = (struct hub_options){0};
}

static void set_limits_locked(struct hub *h, const struct hub_options *o)
{
	h->limit = o->max_clients;
	h->limit_unidentified = MAX(o->max_clients / UNIDENTIFIED_SHARE, UNIDENTIFIED_MIN);
}

/* ---- settings ------------------------------------------------------------------------ */

void hub_configure(struct hub *h, const struct hub_options *o)
{
	struct mail *m = xcalloc(1, sizeof *m);
	m->kind = MAIL_CONFIGURE;
	hub_options_copy(&m->options, o);
	pthread_mutex_lock(&h->lock);
	set_limits_locked(h, o);
	bool running = h->running;
	pthread_mutex_unlock(&h->lock);
	if (running && hub_post(h, m) == 0)
		return;
	/* Nobody else looks at them. */
	hub_options_done(&h->options);
	h->options = m->options;
	free(m);
}

static void apply_options(struct hub *h, struct hub_options *o)
{
	struct client *c;
	hub_options_done(&h->options);
	h->options = *o;
	*o = (struct hub_options){0};
	topics_configured(h);
	TAILQ_FOREACH (c, &h->clients, link) {
		if (c->echo || c->state != CLIENT_OPEN)
			continue;
		c->decoder.max = (uint64_t)h->options.max_message;
		c->next_ping_ms =
		    MIN(c->next_ping_ms, h->now_ms + (uint64_t)h->options.ping_interval_ms);
		ops_review(h, c);
		if (c->state != CLIENT_DEAD)
			client_arm(h, c);
	}
}

/* ---- a turn -------------------------------------------------------------------------- */

static uint64_t tick_us(const struct hub *h)
{
	return (uint64_t)h->options.tick_ms * 1000;
}

static void read_mail(struct hub *h, struct mail *m)
{
	switch (m->kind) {
	case MAIL_ADOPT:
		client_adopt(h, &m->socket);
		break;
	case MAIL_CHANGE:
		events_change(h, &m->change);
		break;
	case MAIL_RESYNC:
		events_resync(h);
		topics_raised(h);
		break;
	case MAIL_CONFIGURE:
		apply_options(h, &m->options);
		break;
	case MAIL_EVENT:
		durable_event(h, m);
		return;
	case MAIL_KEPT:
		durable_kept(h, &m->kept);
		break;
	case MAIL_ACKED:
		durable_acked(h, &m->acked, m->done);
		break;
	}
	hub_mail_free(m);
}

static void fetch_mail(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	STAILQ_CONCAT(&h->unread, &h->mail);
	h->mail_count = h->mail_bytes = 0;
	bool lost = h->mail_lost;
	h->mail_lost = false;
	pthread_mutex_unlock(&h->lock);
	/* Not only behind what there is to read: what was lost has been committed already. */
	if (lost)
		events_resync(h);
}

/* Some of what there is: a full mailbox is seconds of work when many are told, in which nobody
 * would be read or sent anything, and everybody's backlog would fill. */
static void read_some_mail(struct hub *h)
{
	struct mail *m;
	if (STAILQ_EMPTY(&h->unread))
		fetch_mail(h);
	bool due = h->now_us - h->flushed_us >= tick_us(h) && TAILQ_EMPTY(&h->flush);
	h->alone = due && (m = STAILQ_FIRST(&h->unread)) && !STAILQ_NEXT(m, link);
	for (unsigned i = 0; i < MAIL_PER_TURN && (m = STAILQ_FIRST(&h->unread)); i++) {
		STAILQ_REMOVE_HEAD(&h->unread, link);
		read_mail(h, m);
	}
}

static void take_event(struct hub *h, const struct epoll_event *e)
{
	struct client *c = e->data.ptr;
	if (!c) {
		uint64_t n;
		(void)!read(h->wake_fd, &n, sizeof n);
		return;
	}
	CHECK_MAGIC(c, CLIENT_MAGIC);
	if (c->state == CLIENT_DEAD)
		return;
	if (e->events & EPOLLOUT)
		client_flush(h, c);
	if (c->state == CLIENT_DEAD)
		return;
	if (c->deaf && e->events & (EPOLLERR | EPOLLHUP))
		client_drop(h, c, WS_CODE_LOST);
	else if (!c->deaf && e->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		client_readable(h, c);
}

static void flush_all(struct hub *h)
{
	struct client *c, *last = TAILQ_LAST(&h->flush, client_list);
	h->flushed_us = h->now_us;
	/* Whoever is put something meanwhile (bodies that there is room for now) is for the next
	 * tick. */
	for (bool over = !last; !over && (c = TAILQ_FIRST(&h->flush));) {
		over = c == last;
		struct client *next = TAILQ_NEXT(c, flush);
		TAILQ_REMOVE(&h->flush, c, flush);
		c->to_flush = false;
		if (next) {
			__builtin_prefetch(TAILQ_NEXT(next, flush), 1);
			__builtin_prefetch((const char *)next + 64, 1);
		}
		client_flush(h, c);
	}
}

/* Once per tick at most; at once when the last was longer ago. */
static void flush_when_due(struct hub *h)
{
	if (!TAILQ_EMPTY(&h->flush) && h->now_us - h->flushed_us >= tick_us(h))
		flush_all(h);
}

static void timer_due(void *arg, struct timer *t)
{
	client_due(arg, (struct client *)((char *)t - offsetof(struct client, timer)));
}

/* Whatever was sent at once in this turn was its tick's. */
static void count_tick(struct hub *h)
{
	if (h->sent)
		h->flushed_us = h->now_us;
	COUNT(h, ticks, h->sent);
	if (h->batch > atomic_load_explicit(&h->figures.batch_max, memory_order_relaxed))
		atomic_store_explicit(&h->figures.batch_max, h->batch, memory_order_relaxed);
	h->sent = false;
	h->batch = 0;
}

/* Whether identities still hold is looked at when anything about who may call has changed. */
static void check_identities(struct hub *h)
{
	struct auth_stats stats;
	struct client *c;
	auth_stats(h->auth, &stats);
	if (stats.generation == h->auth_generation)
		return;
	h->auth_generation = stats.generation;
	TAILQ_FOREACH (c, &h->clients, link)
		if (c->state == CLIENT_OPEN)
			(void)client_check(h, c);
}

/* Identities expire by the time of day. It may be set, and goes on while the machine sleeps, which
 * the clock of our deadlines does not. */
static void check_clock(struct hub *h)
{
	struct client *c;
	int64_t ahead_s = (int64_t)time(NULL) - (int64_t)(h->now_ms / 1000);
	if (ahead_s >= h->ahead_s - 1 && ahead_s <= h->ahead_s + 1)
		return;
	h->ahead_s = ahead_s;
	TAILQ_FOREACH (c, &h->clients, link)
		if (c->state == CLIENT_OPEN && c->identity)
			client_set_expiry(h, c);
}

static void look_after(struct hub *h)
{
	wheel_advance(&h->wheel, h->now_ms, timer_due, h);
	if (h->now_ms < h->check_ms)
		return;
	h->check_ms = h->now_ms + CHECK_MS;
	durable_look_after(h);
	check_clock(h);
	check_identities(h);
	sessions_expire(h);
	history_expire(h);
}

static void bury(struct hub *h)
{
	struct client *c;
	while ((c = TAILQ_FIRST(&h->dead))) {
		TAILQ_REMOVE(&h->dead, c, link);
		client_free(c);
	}
}

static uint64_t wait_us(const struct hub *h)
{
	uint64_t us = h->wheel.armed > 0 ? WHEEL_STEP_MS * 1000 : CHECK_MS * 1000;
	if (!STAILQ_EMPTY(&h->unread))
		return 0;
	us = MIN(us, topics_wait_us(h));
	if (!TAILQ_EMPTY(&h->flush)) {
		uint64_t since = h->now_us - h->flushed_us;
		us = MIN(us, since < tick_us(h) ? tick_us(h) - since : 0);
	}
	return us;
}

/* Kernels before 5.11, and sandboxes that do not know it, have no epoll_pwait2; ticks are rounded
 * up to milliseconds there. */
static int wait_for_events(struct hub *h, struct epoll_event e[EVENTS_PER_TURN])
{
	uint64_t us = wait_us(h);
	struct timespec t = {.tv_sec = (time_t)(us / 1000000),
	                     .tv_nsec = (long)(us % 1000000) * 1000};
	if (!h->coarse) {
		int n = epoll_pwait2(h->epoll_fd, e, EVENTS_PER_TURN, &t, NULL);
		if (n >= 0 || (errno != ENOSYS && errno != EPERM))
			return n;
		h->coarse = true;
	}
	return epoll_wait(h->epoll_fd, e, EVENTS_PER_TURN, (int)((us + 999) / 1000));
}

static void turn(struct hub *h)
{
	struct epoll_event e[EVENTS_PER_TURN];
	int n = wait_for_events(h, e);
	ALWAYS(n >= 0 || errno == EINTR);
	h->now_us = clock_us();
	h->now_ms = h->now_us / 1000;
	read_some_mail(h);
	for (int i = 0; i < n; i++)
		take_event(h, &e[i]);
	topics_turn(h);
	look_after(h);
	flush_when_due(h);
	count_tick(h);
	bury(h);
}

/* ---- the end ------------------------------------------------------------------------- */

static void say_bye(struct hub *h)
{
	struct client *c;
	uint64_t count = atomic_load_explicit(&h->figures.clients, memory_order_relaxed);
	uint64_t spread = MAX(count * RETRY_PER_CLIENT_MS, RETRY_SPREAD_MIN_MS);
	TAILQ_FOREACH (c, &h->clients, link) {
		if (!client_is_open(c))
			continue;
		if (!c->echo)
			ops_bye(h, c, RETRY_MS + jitter(spread));
		client_close(h, c, WS_CODE_GOING_AWAY, "the server is stopping");
	}
}

/* From here on nothing more is posted. Events would only be dropped by the closes. */
static void read_last_mail(struct hub *h)
{
	struct mail *m;
	pthread_mutex_lock(&h->lock);
	h->running = false;
	STAILQ_CONCAT(&h->unread, &h->mail);
	h->mail_count = h->mail_bytes = 0;
	pthread_mutex_unlock(&h->lock);
	while ((m = STAILQ_FIRST(&h->unread))) {
		STAILQ_REMOVE_HEAD(&h->unread, link);
		if (m->kind == MAIL_CHANGE || m->kind == MAIL_EVENT || m->kind == MAIL_KEPT)
			hub_mail_free(m);
		else
			read_mail(h, m);
	}
}

static void end(struct hub *h)
{
	struct client *c;
	struct session *s;
	read_last_mail(h);
	say_bye(h);
	uint64_t until_ms =
	    h->now_ms + (uint64_t)atomic_load_explicit(&h->stop_ms, memory_order_relaxed);
	while (!TAILQ_EMPTY(&h->clients) && h->now_ms < until_ms)
		turn(h);
	while ((c = TAILQ_FIRST(&h->clients)))
		client_drop(h, c, WS_CODE_GOING_AWAY);
	bury(h);
	while ((s = TAILQ_FIRST(&h->left)))
		session_free(h, s);
	history_forget(h);
}

static void *run(void *arg)
{
	struct hub *h = arg;
	pthread_setname_np(pthread_self(), "hub");
	while (!atomic_load(&h->stops))
		turn(h);
	end(h);
	return NULL;
}

/* ---- life ---------------------------------------------------------------------------- */

struct hub *hub_new(const struct hub_options *o, struct auth *auth, struct live *live)
{
	struct hub *h = xcalloc(1, sizeof *h);
	h->magic = HUB_MAGIC;
	h->auth = auth;
	h->epoll_fd = h->wake_fd = -1;
	pthread_mutex_init(&h->lock, NULL);
	STAILQ_INIT(&h->mail);
	STAILQ_INIT(&h->unread);
	TAILQ_INIT(&h->clients);
	TAILQ_INIT(&h->dead);
	TAILQ_INIT(&h->flush);
	TAILQ_INIT(&h->left);
	TAILQ_INIT(&h->telling);
	names_init(&h->rooms);
	names_init(&h->users);
	names_init(&h->addresses);
	names_init(&h->sessions);
	h->topics = topics_new(live);
	h->history = xcalloc(HISTORY_MESSAGES, sizeof *h->history);
	h->input = xcalloc(READ_ECHO_MAX, 1);
	h->ping = message_new(MESSAGE_REPLY, WS_PING, "", 0);
	ALWAYS(h->ping);
	hub_options_copy(&h->options, o);
	set_limits_locked(h, o);
	return h;
}

static int open_descriptors(struct hub *h)
{
	struct epoll_event e = {.events = EPOLLIN};
	h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->epoll_fd < 0 || h->wake_fd < 0 ||
	    epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->wake_fd, &e) < 0)
		return -errno;
	return 0;
}

static void close_descriptors(struct hub *h)
{
	closep(&h->epoll_fd);
	closep(&h->wake_fd);
	h->epoll_fd = h->wake_fd = -1;
}

static void set_running(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	h->running = true;
	pthread_mutex_unlock(&h->lock);
}

int hub_start(struct hub *h)
{
	CHECK_MAGIC(h, HUB_MAGIC);
	if (h->epoll_fd >= 0)
		return 0;
	int r = open_descriptors(h);
	h->now_us = clock_us();
	h->now_ms = h->now_us / 1000;
	h->flushed_us = 0;
	wheel_init(&h->wheel, h->now_ms);
	atomic_store(&h->stops, false);
	if (r == 0)
		r = -pthread_create(&h->thread, NULL, run, h);
	if (r == 0)
		set_running(h);
	else
		close_descriptors(h);
	return r;
}

void hub_stop(struct hub *h, int64_t timeout_ms)
{
	CHECK_MAGIC(h, HUB_MAGIC);
	if (h->epoll_fd < 0)
		return;
	atomic_store_explicit(&h->stop_ms, timeout_ms, memory_order_relaxed);
	atomic_store(&h->stops, true);
	hub_wake(h);
	pthread_join(h->thread, NULL);
	close_descriptors(h);
}

void hub_free(struct hub **hp)
{
	struct hub *h = *hp;
	if (!h)
		return;
	*hp = NULL;
	CHECK_MAGIC(h, HUB_MAGIC);
	ALWAYS(h->epoll_fd < 0 && STAILQ_EMPTY(&h->mail));
	topics_free(h);
	names_done(&h->rooms);
	names_done(&h->users);
	names_done(&h->addresses);
	names_done(&h->sessions);
	message_unref(h->ping);
	free(h->history);
	free(h->input);
	buf_done(&h->text);
	hub_options_done(&h->options);
	pthread_mutex_destroy(&h->lock);
	h->magic = 0;
	free(h);
}

/* ---- figures ------------------------------------------------------------------------- */

void hub_stats(struct hub *h, struct hub_stats *ret)
{
	const struct figures *f = &h->figures;
#define READ(what) .what = atomic_load_explicit(&f->what, memory_order_relaxed)
	*ret = (struct hub_stats){
	    READ(clients),       READ(unidentified), READ(users),        READ(rooms),
	    READ(memberships),   READ(sessions),     READ(adopted),      READ(events),
	    READ(messages_out),  READ(bytes_out),    READ(messages_in),  READ(bytes_in),
	    READ(sends),         READ(ticks),        READ(batch_max),    READ(dropped),
	    READ(resyncs),       READ(stalls),       READ(resumed),      READ(paths),
	    READ(subscriptions), READ(body_bytes),   READ(passed_bytes), READ(reading),
	    READ(waiting),       READ(first_reads),  READ(refreshes),    READ(unchanged),
	    READ(failed_reads),  READ(bodies),       READ(postponed),    READ(sweeps),
	    READ(sweep_us),      READ(sweep_us_max), READ(published),    READ(durable),
	};
#undef READ
	for (size_t i = 0; i < HUB_CODES; i++) {
		ret->closed[i].code = client_code(i);
		ret->closed[i].count = atomic_load_explicit(&f->closed[i], memory_order_relaxed);
	}
	pthread_mutex_lock(&h->lock);
	ret->lost_mail = h->lost_mail;
	pthread_mutex_unlock(&h->lock);
}
