/*
 * The hub over socket pairs, and what it is made of: the wheel, the outbox, names.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "../../src/ws/hub_impl.h"
#include "hub_fixture.h"

/* ---- the wheel ----------------------------------------------------------------------- */

struct fired {
	struct wheel *wheel;
	uint64_t now_ms;
	unsigned count;
	uint64_t again_ms; /* 0: not */
};

static void on_timer(void *arg, struct timer *t)
{
	struct fired *f = arg;
	f->count++;
	if (f->again_ms)
		wheel_arm(f->wheel, t, f->now_ms + f->again_ms);
}

START_TEST(timers_fire_once_and_not_early)
{
	/* Far and near, within a round of the wheel and past several. */
	static const uint64_t due[] = {1, 49, 50, 51, 999, 25599, 25600, 25601, 100000, 1000000};
	for (size_t i = 0; i < ELEMENTSOF(due); i++) {
		struct wheel w;
		struct timer t = {.at_ms = 0};
		struct fired f = {.wheel = &w};
		const uint64_t start = 123456;
		wheel_init(&w, start);
		wheel_arm(&w, &t, start + due[i]);
		for (uint64_t now = start; now < start + due[i] + 2 * WHEEL_STEP_MS; now += 7) {
			wheel_advance(&w, now, on_timer, &f);
			ck_assert(f.count == 0 || now >= start + due[i]);
		}
		wheel_advance(&w, start + due[i] + 2 * WHEEL_STEP_MS, on_timer, &f);
		ck_assert_uint_eq(f.count, 1);
		ck_assert_uint_eq(w.armed, 0);
	}
}
END_TEST

START_TEST(timers_after_a_long_pause)
{
	struct wheel w;
	struct timer t[WHEEL_SLOTS] = {{.at_ms = 0}};
	struct fired f = {.wheel = &w};
	wheel_init(&w, 0);
	for (size_t i = 0; i < ELEMENTSOF(t); i++)
		wheel_arm(&w, &t[i], 1 + i * 60);
	wheel_disarm(&w, &t[7]);
	wheel_disarm(&w, &t[7]);
	wheel_advance(&w, UINT64_C(1) << 40, on_timer, &f);
	ck_assert_uint_eq(f.count, WHEEL_SLOTS - 1);
}
END_TEST

START_TEST(timers_that_arm_themselves)
{
	struct wheel w;
	struct timer t = {.at_ms = 0};
	struct fired f = {.wheel = &w, .again_ms = 10};
	wheel_init(&w, 0);
	wheel_arm(&w, &t, 10);
	for (f.now_ms = 0; f.now_ms <= 1000; f.now_ms += 50)
		wheel_advance(&w, f.now_ms, on_timer, &f);
	/* Once per step, never for ever within one. */
	ck_assert_uint_ge(f.count, 18);
	ck_assert_uint_le(f.count, 20);
}
END_TEST

/* ---- the outbox ---------------------------------------------------------------------- */

static struct message *make(enum message_kind kind, size_t n)
{
	char payload[300] = {0};
	struct message *m = message_new(kind, WS_TEXT, payload, n);
	ck_assert_ptr_nonnull(m);
	return m;
}

static void push(struct outbox *o, enum message_kind kind, size_t n)
{
	struct message *m = make(kind, n);
	ck_assert_int_eq(outbox_push(o, m), 0);
	message_unref(m);
}

START_TEST(outbox_drops_events_but_not_what_is_half_sent)
{
	struct outbox o = {0};
	for (unsigned i = 0; i < 20; i++)
		push(&o, i % 5 == 3 ? MESSAGE_REPLY : MESSAGE_EVENT, 10 + i);
	ck_assert(!outbox_sent(&o, 12 + 13 + 1)); /* two, and a byte of the third */
	ck_assert_uint_eq(o.count, 18);
	ck_assert_uint_eq(outbox_drop(&o, KINDS_EVENTS), 13);
	ck_assert_uint_eq(o.count, 5);
	ck_assert_uint_eq(o.replies, 4);
	ck_assert_uint_eq(outbox_at(&o, 0)->size, 14);
	ck_assert_int_eq(outbox_at(&o, 1)->kind, MESSAGE_REPLY);
	ck_assert(!outbox_sent(&o, 13));
	ck_assert_uint_eq(o.count, 4);
	push(&o, MESSAGE_RESYNC, 5);
	ck_assert_uint_eq(outbox_drop(&o, KINDS_ALL), 5);
	ck_assert(o.bytes == 0 && o.reply_bytes == 0 && o.replies == 0);
	outbox_done(&o);
}
END_TEST

START_TEST(outbox_says_when_the_resync_has_gone)
{
	struct outbox o = {0};
	push(&o, MESSAGE_REPLY, 8);
	push(&o, MESSAGE_RESYNC, 8);
	push(&o, MESSAGE_EVENT, 8);
	ck_assert(!outbox_sent(&o, 10));
	ck_assert(!outbox_sent(&o, 9));
	ck_assert(outbox_sent(&o, 11));
	ck_assert_uint_eq(o.count, 0);
	outbox_done(&o);
}
END_TEST

/* ---- rooms --------------------------------------------------------------------------- */

START_TEST(room_names)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} table[] = {
	    {"news", "news"},
	    {"a.b_c-D9", "a.b_c-D9"},
	    {"table:course", "table:course"},
	    {"table:shop.course:a:b", "table:shop.course:a:b"},
	    {"table:Course:ID", "table:Course:ID"},
	    {"role:ADMIN", "role:admin"},
	    {"user:Ada", "user:Ada"},
	    {"user:a:b", "user:a:b"},
	    {"table:t:\xc3\xa4", "table:t:\xc3\xa4"},
	    {"", NULL},
	    {"table:", NULL},
	    {"table::x", NULL},
	    {"table:x:", NULL},
	    {"user:", NULL},
	    {"role:", NULL},
	    {"x:y", NULL},
	    {"a b", NULL},
	    {"table:\x01", NULL},
	    {"table:\xff", NULL},
	};
	for (size_t i = 0; i < ELEMENTSOF(table); i++) {
		char name[HUB_ROOM_MAX + 1];
		size_t n;
		int r = room_normalise(table[i].in, strlen(table[i].in), name, &n);
		ck_assert_msg(r == (table[i].out ? 0 : -EINVAL), "%s", table[i].in);
		if (table[i].out)
			ck_assert_str_eq(name, table[i].out);
	}
}
END_TEST

/* ---- the whole ----------------------------------------------------------------------- */

static const struct hub_options OPTIONS = {.max_clients = 100,
                                           .tick_ms = 1,
                                           .backlog = 1 << 20,
                                           .max_message = 1 << 16,
                                           .stall_timeout_ms = 30000,
                                           .ping_interval_ms = 30000,
                                           .auth_timeout_ms = 5000,
                                           .resume_window_ms = 60000};

START_TEST(starts_and_stops_as_often_as_asked)
{
	struct hub *h = hub_new(&OPTIONS, auth, NULL);
	hub_stop(h, 100);
	ck_assert_int_eq(hub_reserve(h, true), -ESHUTDOWN);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(hub_start(h), 0);
		ck_assert_int_eq(hub_start(h), 0);
		int fd = adopt(h);
		ck_assert(hears(fd, "\"hello\""));
		hub_stop(h, 50);
		hub_stop(h, 50);
		ck_assert(hears(fd, "\"bye\""));
		close(fd);
	}
	struct hub_stats s;
	hub_stats(h, &s);
	ck_assert_uint_eq(s.clients, 0);
	ck_assert_uint_eq(s.sessions, 0);
	hub_free(&h);
}
END_TEST

/* Several threads adopt, publish, configure and look, while the hub is stopped under them. */
enum { TURNS = 200 };

static void *adopts(void *arg)
{
	for (unsigned i = 0; i < TURNS; i++) {
		int fd = adopt(arg);
		if (fd < 0)
			continue;
		(void)may_say(fd, "{\"op\":\"join\",\"room\":\"table:t\"}");
		if (i % 3 == 0)
			(void)hears(fd, "\"hello\"");
		close(fd);
	}
	return NULL;
}

static void *publishes(void *arg)
{
	static const char *const keys[] = {"a", "b"};
	for (unsigned i = 0; i < TURNS * 10; i++)
		hub_publish_change(arg, &(struct hub_change){"t", "UPDATE", keys, 2, i % 7 != 0});
	hub_resync(arg);
	return NULL;
}

static void *looks(void *arg)
{
	struct hub_stats s;
	for (unsigned i = 0; i < TURNS; i++)
		hub_stats(arg, &s);
	return NULL;
}

START_TEST(threads)
{
	static void *(*const what[])(void *) = {adopts, adopts, publishes, publishes, looks};
	pthread_t thread[ELEMENTSOF(what)];
	struct hub *h = hub_new(&OPTIONS, auth, NULL);
	struct hub_options other = OPTIONS;
	other.max_clients = 20;
	ck_assert_int_eq(hub_start(h), 0);
	for (size_t i = 0; i < ELEMENTSOF(what); i++)
		pthread_create(&thread[i], NULL, what[i], h);
	hub_configure(h, &other);
	hub_configure(h, &OPTIONS);
	if (_i == 1)
		hub_stop(h, 10);
	for (size_t i = 0; i < ELEMENTSOF(what); i++)
		pthread_join(thread[i], NULL);
	hub_stop(h, 1000);
	struct hub_stats s;
	hub_stats(h, &s);
	ck_assert_uint_eq(s.clients, 0);
	ck_assert_uint_eq(s.rooms, 0);
	hub_free(&h);
}
END_TEST

/* What the mailbox has no room for is told of by a resync. */
START_TEST(a_full_mailbox)
{
	struct hub *h = hub_new(&OPTIONS, auth, NULL);
	struct hub_stats s = {0};
	static char key[4000];
	const char *const keys[] = {key};
	memset(key, 'k', sizeof key - 1);
	ck_assert_int_eq(hub_start(h), 0);
	int fd = adopt(h);
	say(fd, "{\"op\":\"join\",\"room\":\"table:t\",\"id\":1}");
	ck_assert(hears(fd, "\"ok\""));
	for (unsigned i = 0; i < 1000000 && s.lost_mail == 0; i++) {
		hub_publish_change(h, &(struct hub_change){"t", "UPDATE", keys, 1, true});
		if (i % 1000 == 0)
			hub_stats(h, &s);
	}
	/* Whichever bound was met, the mailbox's or the client's. */
	ck_assert(hears(fd, "\"resync\""));
	close(fd);
	hub_stop(h, 1000);
	hub_free(&h);
}
END_TEST

/* Whoever was refused is still there, as long as it likes, up to the close's deadline. */
START_TEST(the_share_of_the_unknown_is_theirs_until_they_are_gone)
{
	enum { SHARE = 16 };
	struct hub *h = hub_new(&OPTIONS, auth, NULL);
	int fd[SHARE];
	ck_assert_int_eq(hub_start(h), 0);
	for (unsigned i = 0; i < SHARE; i++) {
		fd[i] = adopt_with(h, NULL, 0);
		say(fd[i], "nonsense");
	}
	for (unsigned i = 0; i < SHARE; i++)
		ck_assert(hears(fd[i], "\x11\x30")); /* 4400 */
	ck_assert_int_eq(hub_reserve(h, false), -EAGAIN);
	ck_assert_int_eq(hub_reserve(h, true), 0);
	hub_unreserve(h, true);
	close(fd[0]);
	WAIT_UNTIL(hub_reserve(h, false) == 0);
	hub_unreserve(h, false);
	for (unsigned i = 1; i < SHARE; i++)
		close(fd[i]);
	hub_stop(h, 1000);
	hub_free(&h);
}
END_TEST

/* Returns when somebody who is not behind has been sent so many pings. Who is too late to answer
 * one, as may be on a busy machine, is taken for gone, and another goes on in its place. */
static void let_pings_pass(struct hub *h, unsigned pings)
{
	static const char pong[] = "\x8a\x80\0\0\0";
	uint64_t until = clock_ms() + PATIENCE_MS;
	while (pings > 0) {
		ck_assert_msg(clock_ms() < until, "%u pings have not come", pings);
		int fd = adopt(h);
		ck_assert(hears(fd, "\"hello\""));
		while (pings > 0 && hears(fd, "\x89")) {
			(void)!send(fd, pong, 6, MSG_NOSIGNAL);
			pings--;
		}
		close(fd);
	}
}

/* Whoever has much to take is sent no ping, and need not answer one. */
START_TEST(who_is_behind_is_not_taken_for_gone)
{
	struct hub_options o = OPTIONS;
	static char key[4000];
	const char *const keys[] = {key};
	memset(key, 'k', sizeof key - 1);
	struct hub *h = hub_new(&o, auth, NULL);
	struct hub_stats s = {0};
	ck_assert_int_eq(hub_start(h), 0);
	int slow = adopt(h);
	say(slow, "{\"op\":\"join\",\"room\":\"table:t\",\"id\":1}");
	ck_assert(hears(slow, "\"ok\""));
	for (unsigned i = 0; i < 200; i++)
		hub_publish_change(h, &(struct hub_change){"t", "UPDATE", keys, 1, true});
	WAIT_UNTIL((hub_stats(h, &s), s.events == 200));
	say(slow, "{\"op\":\"leave\",\"room\":\"table:t\",\"id\":2}");
	o.ping_interval_ms = 100;
	hub_configure(h, &o);
	let_pings_pass(h, 6);
	/* It is there, and takes what there is. */
	ck_assert(hears(slow, "\"id\":2"));
	close(slow);
	hub_stop(h, 1000);
	hub_free(&h);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hub");
	TCase *t = tcase_create("hub");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 100);
	tcase_add_unchecked_fixture(t, setup_auth, teardown_auth);
	tcase_add_test(t, timers_fire_once_and_not_early);
	tcase_add_test(t, timers_after_a_long_pause);
	tcase_add_test(t, timers_that_arm_themselves);
	tcase_add_test(t, outbox_drops_events_but_not_what_is_half_sent);
	tcase_add_test(t, outbox_says_when_the_resync_has_gone);
	tcase_add_test(t, room_names);
	tcase_add_test(t, starts_and_stops_as_often_as_asked);
	tcase_add_loop_test(t, threads, 0, 2);
	tcase_add_test(t, a_full_mailbox);
	tcase_add_test(t, the_share_of_the_unknown_is_theirs_until_they_are_gone);
	tcase_add_test(t, who_is_behind_is_not_taken_for_gone);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
