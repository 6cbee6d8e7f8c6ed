/* The stream of changes from a real PostgreSQL. */
#include "real_pg.h"

#include <signal.h>

#include "provost/catalog.h"
#include "provost/conn.h"
#include "provost/generations.h"
#include "provost/listener.h"

/* One that is not back after twice that makes nothing fresh, as it may be on a busy machine: quick
 * ones are for the tests that are about that. */
enum { PATIENT_MS = 5000, QUICK_MS = 200 };
enum { SYNC_MS = 30000 };
static int64_t heartbeat_ms = PATIENT_MS;

static struct generations *g;
static struct snapshot *snapshot;
static struct listener *listener;
static struct relay *relay;

/* ---- who wants to know ---------------------------------------------------------------- */

static atomic_uint changes, events, gaps, begun, identities, triggers;
static _Atomic uint64_t epoch_at_gap; /* raises, as they were when the sink was told */

static void on_change(void *arg, const struct change *c)
{
	ck_assert_ptr_eq(arg, &changes);
	ck_assert_int_eq(c->kind, CHANGE_TABLE);
	atomic_fetch_add(&changes, 1);
}

static void on_event(void *arg, const struct change *c)
{
	(void)arg;
	ck_assert_int_eq(c->kind, CHANGE_EVENT);
	ck_assert_str_eq(c->event, "{\"id\":1}");
	atomic_fetch_add(&events, 1);
}

static void on_begun(void *arg)
{
	(void)arg;
	atomic_fetch_add(&begun, 1);
}

static void on_gap(void *arg)
{
	(void)arg;
	atomic_store(&epoch_at_gap, generations_raises(g));
	atomic_fetch_add(&gaps, 1);
}

static void on_identities(void *arg)
{
	(void)arg;
	atomic_fetch_add(&identities, 1);
}

static void on_triggers(void *arg)
{
	(void)arg;
	atomic_fetch_add(&triggers, 1);
}

/* ---- a catalogue --------------------------------------------------------------------- */

/* One endpoint, narrowed to rows of `course` by `id` and of `odd:table` by `k`. */
static char COURSE[] = "course", ID[] = "id", ODD[] = "odd:table", K[] = "k", NAME[] = "x/get";
static struct dependency DEPENDENCIES[] = {{.table = COURSE, .column = ID},
                                           {.table = ODD, .column = K}};
static struct endpoint ENDPOINT = {.name = NAME, .dependency = DEPENDENCIES, .dependencies = 2};
static struct endpoint *ENDPOINTS[] = {&ENDPOINT};

static void nothing_to_free(struct snapshot_object *o)
{
	(void)o;
}

static struct catalog CATALOG = {
    .object = {.free = nothing_to_free}, .endpoint = ENDPOINTS, .endpoints = 1};

/* ---- fixtures ------------------------------------------------------------------------ */

static void start(const char *url)
{
	const struct listener_options o = {.url = (char *)(uintptr_t)url,
	                                   .heartbeat_ms = heartbeat_ms,
	                                   .sync_timeout_ms = SYNC_MS};
	const struct listener_sink sink = {.change = on_change,
	                                   .event = on_event,
	                                   .gap = on_gap,
	                                   .began = on_begun,
	                                   .identities = on_identities,
	                                   .triggers = on_triggers,
	                                   .arg = &changes};
	listener = listener_new(&o, g, snapshot, &sink);
	ck_assert_int_eq(listener_start(listener), 0);
}

static void setup(void)
{
	conn_global_init();
	pg_open();
	relay = relay_start(0);
	g = generations_new();
	snapshot = snapshot_new();
	snapshot_set(snapshot, &CATALOG.object);
}

static void teardown(void)
{
	if (listener)
		listener_stop(listener);
	listener_free(&listener);
	snapshot_free(&snapshot);
	generations_free(&g);
	if (relay)
		relay_stop(&relay);
	pg_close();
}

static struct listener_stats stats(void)
{
	struct listener_stats s;
	listener_stats(listener, &s);
	return s;
}

static bool is_fresh(void)
{
	return generations_fresh(g, NULL, 0, generations_now(g), clock_ms());
}

static void await_live(void)
{
	WAIT_UNTIL(stats().state == LISTENER_LIVE && is_fresh());
}

static void start_live(void)
{
	start(relay->url);
	await_live();
}

static void notify(const char *payload)
{
	const char *const values[] = {payload};
	PGresult *r =
	    PQexecParams(pg, "SELECT pg_notify('provost', $1)", 1, NULL, values, NULL, NULL, 0);
	ck_assert_msg(PQresultStatus(r) == PGRES_TUPLES_OK, "%s", PQerrorMessage(pg));
	PQclear(r);
}

/* Has everything that was committed until now processed. */
static void settle(void)
{
	struct sync s;
	/* Again, if a machine that is busy made a heartbeat overdue. */
	uint64_t until = clock_ms() + PATIENCE_MS;
	do {
		ck_assert_msg(clock_ms() < until, "no token comes back");
		listener_expect(listener, &s);
		notify(s.payload);
	} while (!listener_await(listener, &s, clock_us() + 60000000));
}

static unsigned backend(void)
{
	_cleanup_free_ char *sql = xasprintf("SELECT pid FROM pg_stat_activity"
	                                     " WHERE application_name = 'test-%d listener'",
	                                     (int)getpid());
	return pg_ask(sql);
}

static void terminate_backend(void)
{
	_cleanup_free_ char *sql = xasprintf("SELECT pg_terminate_backend(%u)", backend());
	pg_ask(sql);
}

/* ---- what a change makes old --------------------------------------------------------- */

/* A tag that is written like this, as of when it was looked at. */
struct watched {
	const char *tag;
	gen_slot slot;
	uint64_t start;
};

static struct watched watch(const char *tag)
{
	return (struct watched){tag, generations_slot(g, tag, strlen(tag)), generations_now(g)};
}

/* Whether it has been raised, whether or not the lease has just ended. */
static bool is_raised(const struct watched *w)
{
	await_live();
	return !generations_fresh(g, &w->slot, 1, w->start, 1);
}

#define CHECK_RAISES(payload, ...)                                                                 \
	do {                                                                                       \
		const char *const expected_[] = {__VA_ARGS__};                                     \
		check_raises((payload), expected_, ELEMENTSOF(expected_));                         \
	} while (0)

/* That of all these tags exactly the expected ones are raised by it. */
static void check_raises(const char *payload, const char *const *expected, size_t n)
{
	static const char *const all[] = {
	    "course",     "course:*",  "course:id=a", "course:id=b",   "course:kind=x",
	    "course:id=", "odd:table", "odd:table:*", "odd:table:k=v", "odd:table:*:*",
	    "other",      "other:*",   "other:id=a",
	};
	struct watched w[ELEMENTSOF(all)];

	for (size_t i = 0; i < ELEMENTSOF(all); i++)
		w[i] = watch(all[i]);
	notify(payload);
	settle();
	for (size_t i = 0; i < ELEMENTSOF(all); i++) {
		bool wanted = false;
		for (size_t k = 0; k < n; k++)
			wanted |= !strcmp(expected[k], all[i]);
		ck_assert_msg(is_raised(&w[i]) == wanted, "%s: %s %s", payload, all[i],
		              wanted ? "was not raised" : "was raised");
	}
}

START_TEST(a_change_raises_its_rows)
{
	start_live();
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"a\"]}}",
	             "course", "course:id=a");
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"a\",\"b\"],"
	             "\"kind\":[\"x\"]}}",
	             "course", "course:id=a", "course:id=b", "course:kind=x");
	/* All of them NULL. */
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[]}}", "course");
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"\"]}}",
	             "course", "course:id=");
	CHECK_RAISES("{\"table\":\"odd:table\",\"op\":\"INSERT\",\"values\":{\"k\":[\"v\"]}}",
	             "odd:table", "odd:table:k=v");
	/* No endpoint is narrowed on it. */
	CHECK_RAISES("{\"table\":\"other\",\"op\":\"INSERT\",\"values\":{}}", "other");
	WAIT_UNTIL(stats().changes == 6);
	ck_assert_uint_eq(atomic_load(&changes), 6);
}
END_TEST

START_TEST(a_change_of_unknown_rows_raises_all)
{
	start_live();
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"TRUNCATE\"}", "course", "course:*");
	/* Without the column that an endpoint is narrowed by. */
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"kind\":[\"x\"]}}",
	             "course", "course:*", "course:kind=x");
	CHECK_RAISES("{\"table\":\"odd:table\",\"op\":\"TRUNCATE\"}", "odd:table", "odd:table:*");
}
END_TEST

START_TEST(without_a_catalogue_a_change_raises_what_it_tells)
{
	snapshot_set(snapshot, NULL);
	start_live();
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"kind\":[\"x\"]}}",
	             "course", "course:kind=x");
}
END_TEST

/* Other columns count as soon as the new catalogue is there. */
START_TEST(the_catalogue_in_force_counts)
{
	static struct dependency by_kind[] = {{.table = COURSE, .column = K}};
	static struct endpoint endpoint = {.name = NAME, .dependency = by_kind, .dependencies = 1};
	static struct endpoint *endpoints[] = {&endpoint};
	static struct catalog catalog = {
	    .object = {.free = nothing_to_free}, .endpoint = endpoints, .endpoints = 1};

	start_live();
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"a\"]}}",
	             "course", "course:id=a");
	snapshot_set(snapshot, &catalog.object);
	CHECK_RAISES("{\"table\":\"course\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"a\"]}}",
	             "course", "course:id=a", "course:*");
}
END_TEST

START_TEST(epoch_and_garbage_raise_everything)
{
	start_live();
	unsigned before = atomic_load(&triggers);
	struct watched w = watch("anything");
	notify("epoch");
	settle();
	ck_assert(is_raised(&w));
	ck_assert_uint_eq(atomic_load(&triggers), before + 1);
	w = watch("anything");
	notify("{\"table\":");
	settle();
	ck_assert(is_raised(&w));
	WAIT_UNTIL(stats().unreadable == 1);
	ck_assert_uint_eq(stats().epochs, 1);
	ck_assert_uint_eq(stats().gaps, 0);
}
END_TEST

START_TEST(what_is_published_is_handed_on_and_raises_nothing)
{
	start_live();
	struct watched w = watch("anything");
	notify("event 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef {\"id\":1}");
	settle();
	ck_assert_uint_eq(atomic_load(&events), 1);
	ck_assert(!is_raised(&w));
	ck_assert_uint_eq(stats().unreadable, 0);
	notify("event 0123456789abcdef {\"id\":1}");
	settle();
	ck_assert_uint_eq(atomic_load(&events), 1);
	ck_assert(is_raised(&w));
}
END_TEST

START_TEST(identities_are_told_of)
{
	start_live();
	unsigned before = atomic_load(&identities);
	notify("{\"table\":\"provost.revocation\",\"op\":\"INSERT\"}");
	settle();
	ck_assert_uint_eq(atomic_load(&identities), before + 1);
	notify("{\"table\":\"provost.api_key\",\"op\":\"UPDATE\",\"values\":{\"id\":[\"1\"]}}");
	notify("{\"table\":\"provost.other\",\"op\":\"UPDATE\"}");
	settle();
	ck_assert_uint_eq(atomic_load(&identities), before + 2);
}
END_TEST

/* ---- tokens -------------------------------------------------------------------------- */

START_TEST(a_token_is_seen_when_all_before_it_is_raised)
{
	start_live();
	for (unsigned i = 0; i < 200; i++) {
		struct sync s;
		struct watched w = watch("course");
		_cleanup_free_ char *sql = NULL;
		listener_expect(listener, &s);
		sql = xasprintf("BEGIN; SELECT pg_notify('provost', '{\"table\":\"course\","
		                "\"op\":\"TRUNCATE\"}'); SELECT pg_notify('provost', '%s'); COMMIT",
		                s.payload);
		pg_ask(sql);
		ck_assert(listener_await(listener, &s, clock_us() + 60000000));
		ck_assert(is_raised(&w));
	}
	ck_assert_uint_eq(stats().syncs, 200);
	ck_assert_uint_eq(stats().late_syncs, 0);
}
END_TEST

START_TEST(a_token_that_does_not_come_is_not_waited_for_for_ever)
{
	struct sync s;

	start_live();
	listener_expect(listener, &s);
	uint64_t now = clock_us();
	ck_assert(!listener_await(listener, &s, now + 30000));
	ck_assert_uint_ge(clock_us(), now + 30000);
	/* sync_timeout, where it is less. */
	listener_configure(listener, &(struct listener_options){.heartbeat_ms = heartbeat_ms,
	                                                        .sync_timeout_ms = 20});
	listener_expect(listener, &s);
	ck_assert(!listener_await(listener, &s, clock_us() + 60000000));
	ck_assert_uint_eq(stats().late_syncs, 2);
	/* What comes too late, or is another instance's, is nobody's. */
	notify(s.payload);
	notify("sync 00000000000000000000000000000000");
	settle();
}
END_TEST

START_TEST(a_token_may_be_forgotten)
{
	struct sync s;

	start_live();
	listener_expect(listener, &s);
	listener_forget(listener, &s);
	notify(s.payload);
	settle();
}
END_TEST

START_TEST(more_tokens_than_there_may_be_are_not_waited_for)
{
	enum { MANY = 1100 };
	_cleanup_free_ struct sync *s = xcalloc(MANY, sizeof *s);
	unsigned registered = 0;

	start_live();
	for (size_t i = 0; i < MANY; i++) {
		listener_expect(listener, &s[i]);
		registered += s[i].connection != 0;
	}
	ck_assert_uint_eq(registered, 1024);
	uint64_t now = clock_us();
	ck_assert(!listener_await(listener, &s[MANY - 1], now + 60000000));
	for (size_t i = 0; i + 1 < MANY; i++)
		listener_forget(listener, &s[i]);
	settle();
}
END_TEST

static void *await_one(void *arg)
{
	struct sync s;
	listener_expect(listener, &s);
	atomic_store((atomic_bool *)arg, true);
	return listener_await(listener, &s, clock_us() + 60000000) ? arg : NULL;
}

struct writer {
	pthread_t thread;
	atomic_bool waits;
};

static void writer_start(struct writer *w)
{
	listener_configure(listener, &(struct listener_options){.heartbeat_ms = heartbeat_ms,
	                                                        .sync_timeout_ms = 60000});
	ck_assert_int_eq(pthread_create(&w->thread, NULL, await_one, &w->waits), 0);
	WAIT_UNTIL(atomic_load(&w->waits));
}

/* That it was told that its token did not come. */
static void writer_join(struct writer *w)
{
	void *ret;
	pthread_join(w->thread, &ret);
	ck_assert_ptr_null(ret);
}

/* ---- losing the stream --------------------------------------------------------------- */

static void check_gap(void (*lose)(void))
{
	struct writer writer = {0};

	start_live();
	unsigned told = atomic_load(&identities);
	uint64_t start_ = generations_now(g);
	writer_start(&writer);
	lose();
	writer_join(&writer);
	WAIT_UNTIL(stats().gaps == 1);
	await_live();
	ck_assert_uint_eq(atomic_load(&begun), 1);
	ck_assert(!generations_fresh(g, NULL, 0, start_, clock_ms()));
	ck_assert_uint_eq(atomic_load(&gaps), 1);
	ck_assert_uint_gt(atomic_load(&epoch_at_gap), start_);
	ck_assert_uint_gt(atomic_load(&identities), told);
	settle();
	ck_assert_uint_eq(stats().gaps, 1);
}

START_TEST(a_killed_backend_is_a_gap)
{
	check_gap(terminate_backend);
}
END_TEST

static void cut(void)
{
	relay_cut(relay);
}

START_TEST(a_closed_socket_is_a_gap)
{
	check_gap(cut);
}
END_TEST

START_TEST(nothing_is_fresh_while_it_is_lost)
{
	start_live();
	ck_assert(!listener_down_us(listener));
	unsigned port = relay->port;
	relay_stop(&relay);
	WAIT_UNTIL(stats().state == LISTENER_CONNECTING);
	ck_assert(!is_fresh());
	struct sync s;
	listener_expect(listener, &s);
	ck_assert_uint_eq(s.connection, 0);
	ck_assert(!listener_await(listener, &s, clock_us() + 60000000));
	WAIT_UNTIL(listener_down_us(listener));
	ck_assert(!is_fresh());
	relay = relay_start(port);
	await_live();
	WAIT_UNTIL(!listener_down_us(listener));
	ck_assert_uint_eq(atomic_load(&gaps), 1);
}
END_TEST

static void signal_backend(unsigned pid, int sig)
{
	_cleanup_free_ char *sql =
	    xasprintf("COPY (SELECT 1 WHERE false) TO PROGRAM 'kill -%d %u'", sig, pid);
	pg_ask(sql);
}

START_TEST(a_backend_that_hangs_is_noticed_and_heals_without_a_gap)
{
	struct writer writer = {0};

	heartbeat_ms = QUICK_MS;
	start_live();
	unsigned pid = backend();
	uint64_t start_ = generations_now(g);
	writer_start(&writer);
	signal_backend(pid, SIGSTOP);
	WAIT_UNTIL(stats().state == LISTENER_OVERDUE);
	WAIT_UNTIL(!is_fresh());
	ck_assert(listener_down_us(listener));
	writer_join(&writer);
	/* Told while it hung, it is not missed. */
	struct watched w = watch("course");
	notify("{\"table\":\"course\",\"op\":\"TRUNCATE\"}");
	signal_backend(pid, SIGCONT);
	await_live();
	WAIT_UNTIL(!listener_down_us(listener));
	ck_assert(is_raised(&w));
	/* Reads had changes from the database that were yet to be told: nothing from before comes
	 * back. */
	struct watched epoch = watch("anything");
	epoch.start = start_;
	ck_assert(is_raised(&epoch));
	ck_assert_uint_eq(atomic_load(&gaps), 0);
	ck_assert_uint_eq(stats().gaps, 0);
	ck_assert_uint_eq(backend(), pid);
	settle();
}
END_TEST

/* What was lent for three long heartbeats does not outlast a short one that is overdue. */
START_TEST(a_shorter_heartbeat_ends_what_was_lent_by_a_longer_one)
{
	start_live();
	unsigned pid = backend();
	signal_backend(pid, SIGSTOP);
	ck_assert(is_fresh());
	listener_configure(listener, &(struct listener_options){.heartbeat_ms = QUICK_MS,
	                                                        .sync_timeout_ms = SYNC_MS});
	WAIT_UNTIL(stats().state == LISTENER_OVERDUE);
	ck_assert(!is_fresh());
	signal_backend(pid, SIGCONT);
	await_live();
}
END_TEST

START_TEST(a_backend_that_hangs_for_long_is_given_up)
{
	heartbeat_ms = QUICK_MS;
	start_live();
	unsigned pid = backend();
	signal_backend(pid, SIGSTOP);
	WAIT_UNTIL(stats().gaps == 1);
	await_live();
	ck_assert_uint_eq(atomic_load(&gaps), 1);
	signal_backend(pid, SIGCONT);
	WAIT_UNTIL(backend() != pid);
	settle();
}
END_TEST

START_TEST(lag_is_measured)
{
	heartbeat_ms = QUICK_MS;
	start_live();
	WAIT_UNTIL(stats().lag_us > 0);
	struct listener_stats s = stats();
	ck_assert_uint_ge(s.lag_max_us, s.lag_us);
}
END_TEST

/* ---- sessions ------------------------------------------------------------------------ */

START_TEST(limits_of_the_role_do_not_end_it)
{
	const char *dsn = strchr(relay->url, '?') ? "&" : "?";
	_cleanup_free_ char *url =
	    xasprintf("%s%soptions=-c%%20idle_session_timeout%%3D20%%20-c%%20statement_timeout"
	              "%%3D1000",
	              relay->url, dsn);
	start(url);
	await_live();
	listener_configure(
	    listener, &(struct listener_options){.heartbeat_ms = 2000, .sync_timeout_ms = SYNC_MS});
	/* Longer than the limit between two heartbeats; what ends the session would end this. */
	struct sync s;
	listener_expect(listener, &s);
	ck_assert(!listener_await(listener, &s, clock_us() + 200000));
	ck_assert_uint_eq(stats().state, LISTENER_LIVE);
	ck_assert_uint_eq(stats().gaps, 0);
	settle();
}
END_TEST

/* What comes through it may lack something, however regular the heartbeats. */
START_TEST(a_pooler_is_not_trusted)
{
	atomic_store(&relay->pooling, true);
	start(relay->url);
	WAIT_UNTIL(listener_down_us(listener) && stats().gaps > 0);
	ck_assert_int_eq(stats().state, LISTENER_CONNECTING);
	ck_assert(!is_fresh());
	atomic_store(&relay->pooling, false);
	await_live();
	settle();
}
END_TEST

START_TEST(it_may_begin_before_the_database_is_there)
{
	unsigned port = relay->port;
	_cleanup_free_ char *url = xstrdup(relay->url);
	relay_stop(&relay);
	start(url);
	ck_assert(!is_fresh());
	WAIT_UNTIL(listener_down_us(listener));
	relay = relay_start(port);
	await_live();
	/* Nobody has missed anything. */
	ck_assert_uint_eq(atomic_load(&gaps), 0);
	ck_assert_uint_eq(stats().gaps, 0);
	settle();
}
END_TEST

/* Not when its attempt ends, which is after two seconds each time. A machine that halts for so long
 * makes one of them slow, or a few. */
START_TEST(it_stops_while_it_connects)
{
	unsigned slow = 0;
	relay_hold(relay, true);
	for (unsigned i = 0; i < 20; i++) {
		listener_free(&listener);
		start(relay->url);
		WAIT_UNTIL(atomic_load(&relay->open) == 1);
		uint64_t now = clock_ms();
		listener_stop(listener);
		slow += clock_ms() - now >= 1000;
		ck_assert_int_eq(stats().state, LISTENER_STOPPED);
		ck_assert(!is_fresh());
		WAIT_UNTIL(atomic_load(&relay->open) == 0);
	}
	ck_assert_uint_le(slow, 5);
}
END_TEST

START_TEST(stopping_releases_who_waits)
{
	struct writer writer = {0};

	start_live();
	writer_start(&writer);
	listener_stop(listener);
	writer_join(&writer);
	ck_assert(!is_fresh());
}
END_TEST

START_TEST(a_url_that_leads_nowhere_is_no_end)
{
	start("host=/nonexistent");
	WAIT_UNTIL(listener_down_us(listener));
	ck_assert_int_eq(stats().state, LISTENER_CONNECTING);
}
END_TEST

static TCase *cases(const char *name)
{
	TCase *c = tcase_create(name);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	return c;
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("listener");
	TCase *c = cases("changes");
	tcase_add_test(c, a_change_raises_its_rows);
	tcase_add_test(c, a_change_of_unknown_rows_raises_all);
	tcase_add_test(c, without_a_catalogue_a_change_raises_what_it_tells);
	tcase_add_test(c, the_catalogue_in_force_counts);
	tcase_add_test(c, epoch_and_garbage_raise_everything);
	tcase_add_test(c, what_is_published_is_handed_on_and_raises_nothing);
	tcase_add_test(c, identities_are_told_of);
	suite_add_tcase(s, c);
	c = cases("tokens");
	tcase_add_test(c, a_token_is_seen_when_all_before_it_is_raised);
	tcase_add_test(c, a_token_that_does_not_come_is_not_waited_for_for_ever);
	tcase_add_test(c, a_token_may_be_forgotten);
	tcase_add_test(c, more_tokens_than_there_may_be_are_not_waited_for);
	suite_add_tcase(s, c);
	c = cases("gaps");
	tcase_add_test(c, a_killed_backend_is_a_gap);
	tcase_add_test(c, a_closed_socket_is_a_gap);
	tcase_add_test(c, nothing_is_fresh_while_it_is_lost);
	tcase_add_test(c, a_backend_that_hangs_is_noticed_and_heals_without_a_gap);
	tcase_add_test(c, a_shorter_heartbeat_ends_what_was_lent_by_a_longer_one);
	tcase_add_test(c, a_backend_that_hangs_for_long_is_given_up);
	tcase_add_test(c, lag_is_measured);
	suite_add_tcase(s, c);
	c = cases("sessions");
	tcase_add_test(c, limits_of_the_role_do_not_end_it);
	tcase_add_test(c, a_pooler_is_not_trusted);
	tcase_add_test(c, it_may_begin_before_the_database_is_there);
	tcase_add_test(c, it_stops_while_it_connects);
	tcase_add_test(c, stopping_releases_who_waits);
	tcase_add_test(c, a_url_that_leads_nowhere_is_no_end);
	suite_add_tcase(s, c);
	return pg_run_suite(s);
}
