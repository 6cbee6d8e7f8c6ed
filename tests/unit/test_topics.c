/*
 * Paths that are watched: the hub over socket pairs, with a real engine on a real PostgreSQL, and
 * the outbox with bodies in it.
 */
#include <sched.h>

#include "../../src/ws/hub_impl.h"
#include "engine_fixture.h"
#include "hub_fixture.h"

#include "provost/catalog.h"
#include "provost/live.h"
#include "provost/snapshot.h"

/* ---- the outbox ---------------------------------------------------------------------- */

static void push(struct outbox *o, enum message_kind kind, size_t n)
{
	char payload[300] = {0};
	struct message *m = message_new(kind, WS_TEXT, payload, n);
	ck_assert_ptr_nonnull(m);
	ck_assert_int_eq(outbox_push(o, m), 0);
	message_unref(m);
}

START_TEST(bodies_are_not_of_the_backlog)
{
	struct outbox o = {0};
	push(&o, MESSAGE_EVENT, 8);
	push(&o, MESSAGE_DATA, 98);
	push(&o, MESSAGE_REPLY, 18);
	push(&o, MESSAGE_RESYNC, 28);
	ck_assert_uint_eq(o.bytes, 10 + 20 + 30);
	ck_assert_uint_eq(o.data_bytes, 100);
	ck_assert_uint_eq(o.data, 1);
	ck_assert_uint_eq(o.replies, 1);
	ck_assert_uint_eq(o.reply_bytes, 20);
	/* They are not dropped with events, but are when nobody is to hear any more. */
	ck_assert_uint_eq(outbox_drop(&o, KINDS_EVENTS), 1);
	ck_assert_uint_eq(o.data, 1);
	ck_assert_uint_eq(outbox_drop(&o, KINDS_PASSING), 1);
	ck_assert_uint_eq(o.data, 0);
	ck_assert_uint_eq(o.data_bytes, 0);
	ck_assert_uint_eq(o.count, 2);
	push(&o, MESSAGE_DATA, 98);
	ck_assert(outbox_sent(&o, 20 + 30 + 1));
	ck_assert_uint_eq(outbox_drop(&o, KINDS_ALL), 0); /* half sent */
	ck_assert(!outbox_sent(&o, 99));
	ck_assert_uint_eq(o.data_bytes, 0);
	ck_assert_uint_eq(o.bytes, 0);
	outbox_done(&o);
}
END_TEST

/* ---- what is watched ----------------------------------------------------------------- */

/* Whoever reads an item waits for the lock of its number. */
enum { FIRST_ITEM = 920001, ITEMS = 16 };

static const char ITEM[] =
    "-- @route GET /api/items/:id\n"
    "-- @path id integer\n"
    "-- @depends test_topics.item(id=:id)\n"
    "SELECT json_build_array(i.n, clock_timestamp()) FROM test_topics.item i,"
    " LATERAL pg_advisory_xact_lock_shared(i.id) WHERE i.id = :id\n";

static struct snapshot *catalogs;
static struct live *live;
static struct hub *hub;
static const struct hub_options OPTIONS = {.max_clients = 100,
                                           .tick_ms = 1,
                                           .backlog = 1 << 20,
                                           .max_message = 1 << 16,
                                           .stall_timeout_ms = 60000,
                                           .ping_interval_ms = 60000,
                                           .auth_timeout_ms = 60000,
                                           .resume_window_ms = 60000,
                                           .refresh_interval_ms = 10};

static void create_objects(void)
{
	pg_open();
	pg_ask("SET client_min_messages = error;"
	       "DROP SCHEMA IF EXISTS test_topics CASCADE;"
	       "CREATE SCHEMA test_topics;"
	       "CREATE TABLE test_topics.item (id integer PRIMARY KEY, n integer);"
	       "INSERT INTO test_topics.item SELECT i, 1 FROM generate_series(920001, 920016) i;"
	       "GRANT USAGE ON SCHEMA test_topics TO public;"
	       "GRANT SELECT ON test_topics.item TO public");
	pg_close();
}

static void publish(void)
{
	char dir[] = "/tmp/test_topics_XXXXXX";
	_cleanup_errors_ struct errors *errs = errors_new();
	ck_assert_ptr_nonnull(mkdtemp(dir));
	_cleanup_free_ char *path = xasprintf("%s/item.sql", dir);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(ITEM, f);
	fclose(f);
	struct catalog *c = catalog_load(dir, errs);
	unlink(path);
	rmdir(dir);
	ck_assert_msg(c, "%s", errors_text(errs, 0));
	int r = engine_describe(c, getenv("PROVOST_TEST_APP_DSN"), true, -1, clock_us() + 60000000,
	                        errs);
	ck_assert_msg(r == 0, "%s", errors_text(errs, 0));
	for (size_t i = 0; i < c->endpoints; i++)
		c->endpoint[i]->freshness = (struct freshness){.ttl_ms = 600000};
	snapshot_set(catalogs, &c->object);
}

static void setup_hub(void)
{
	setup_auth();
	setup();
	const struct engine_options e = options(4, 1000);
	start(relay->url, 4, PATIENCE_MS, &e);
	catalogs = snapshot_new();
	publish();
	live = live_new(catalogs, cache, engine, generations);
	hub = hub_new(&OPTIONS, auth, live);
	ck_assert_int_eq(hub_start(hub), 0);
}

/* As the server does: what is in flight ends with the engine, behind the hub's end. */
static void teardown_hub(void)
{
	hub_stop(hub, 100);
	engine_stop(engine, 0);
	hub_free(&hub);
	live_free(&live);
	teardown();
	snapshot_set(catalogs, NULL);
	snapshot_free(&catalogs);
	teardown_auth();
}

static struct hub_stats figures(void)
{
	struct hub_stats s;
	hub_stats(hub, &s);
	return s;
}

static void change(int item)
{
	char id[16];
	snprintf(id, sizeof id, "%d", item);
	tags_raise_row(generations, "test_topics.item", "id", id);
	hub_raised(hub);
}

/* ---- clients ------------------------------------------------------------------------- */

/* The hub may have closed it. */
static void ask_for(int fd, const char *op, int item)
{
	char text[100];
	snprintf(text, sizeof text, "{\"op\":\"%s\",\"path\":\"/api/items/%d\",\"id\":1}", op,
	         item);
	(void)may_say(fd, text);
}

static void lock_item(int item, bool held)
{
	char sql[80];
	snprintf(sql, sizeof sql, "SELECT pg_advisory_%s(%d)", held ? "lock" : "unlock", item);
	pg_ask(sql);
}

/* ---- tests --------------------------------------------------------------------------- */

START_TEST(without_live_nothing_is_watched)
{
	struct hub *other = hub_new(&OPTIONS, auth, NULL);
	ck_assert_int_eq(hub_start(other), 0);
	int fd = adopt(other);
	ask_for(fd, "subscribe", FIRST_ITEM);
	ck_assert(hears(fd, "\"code\":4503"));
	ck_assert(hears(fd, "\"live\":false"));
	ask_for(fd, "unsubscribe", FIRST_ITEM);
	ck_assert(hears(fd, "\"ok\""));
	hub_raised(other);
	hub_resync(other);
	close(fd);
	hub_stop(other, 100);
	hub_free(&other);
}
END_TEST

START_TEST(a_change_is_one_read_and_one_message)
{
	int fd[5];
	for (size_t i = 0; i < ELEMENTSOF(fd); i++) {
		fd[i] = adopt(hub);
		ask_for(fd[i], "subscribe", FIRST_ITEM);
		ck_assert(hears(fd[i], "\"ok\""));
		ck_assert(hears(fd[i], "\"body\":[1,"));
	}
	ck_assert_uint_eq(figures().paths, 1);
	ck_assert_uint_eq(figures().subscriptions, ELEMENTSOF(fd));
	ck_assert_uint_eq(figures().first_reads, 1);
	change(FIRST_ITEM);
	for (size_t i = 0; i < ELEMENTSOF(fd); i++)
		ck_assert(hears(fd[i], "\"body\":[1,"));
	ck_assert_uint_eq(figures().refreshes, 1);
	ck_assert_uint_eq(figures().bodies, 2 * ELEMENTSOF(fd));
	/* What others show is looked at, and not read. */
	uint64_t sweeps = figures().sweeps;
	change(FIRST_ITEM + 1);
	WAIT_UNTIL(figures().sweeps > sweeps);
	ck_assert_uint_eq(figures().refreshes, 1);
	for (size_t i = 0; i < ELEMENTSOF(fd); i++)
		close(fd[i]);
	WAIT_UNTIL(figures().paths == 0);
	ck_assert_uint_eq(figures().body_bytes, 0);
}
END_TEST

/* The hub ends, and may start again, while statements run for those who watched. */
START_TEST(reads_outlive_the_hub)
{
	lock_item(FIRST_ITEM, true);
	lock_item(FIRST_ITEM + 1, true);
	int fd = adopt(hub);
	ask_for(fd, "subscribe", FIRST_ITEM);
	ask_for(fd, "subscribe", FIRST_ITEM + 1);
	WAIT_UNTIL(pg_running() == 2);
	hub_stop(hub, 50);
	ck_assert_uint_eq(figures().paths, 0);
	close(fd);
	lock_item(FIRST_ITEM, false); /* one ends while there is no hub, */
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_int_eq(hub_start(hub), 0);
	lock_item(FIRST_ITEM + 1, false); /* the other to one that knows nothing of it */
	fd = adopt(hub);
	ask_for(fd, "subscribe", FIRST_ITEM + 2);
	ck_assert(hears(fd, "\"body\":[1,"));
	lock_item(FIRST_ITEM + 3, true); /* and one is still there at the end */
	ask_for(fd, "subscribe", FIRST_ITEM + 3);
	WAIT_UNTIL(figures().reading == 1 && pg_running() == 1);
	close(fd);
}
END_TEST

enum { CLIENTS = 4, TURNS = 60 };
static atomic_bool over;
static bool stops; /* the hub, meanwhile: it is not configured beside that */

static void *watches(void *arg)
{
	(void)arg;
	for (unsigned turn = 0; turn < TURNS; turn++) {
		int fd = adopt(hub);
		if (fd < 0)
			continue;
		for (unsigned i = 0; i < 6; i++)
			ask_for(fd, jitter(4) ? "subscribe" : "unsubscribe",
			        FIRST_ITEM + (int)jitter(ITEMS));
		if (turn % 3 == 0)
			(void)hears(fd, "\"ok\"");
		close(fd);
	}
	return NULL;
}

static void *changes(void *arg)
{
	(void)arg;
	while (!atomic_load(&over)) {
		change(FIRST_ITEM + (int)jitter(ITEMS));
		if (jitter(50) == 0)
			hub_resync(hub);
		if (!stops && jitter(50) == 0)
			hub_configure(hub, &OPTIONS);
		(void)figures();
		sched_yield();
	}
	return NULL;
}

START_TEST(threads)
{
	pthread_t client[CLIENTS], changer;
	atomic_store(&over, false);
	stops = _i == 1;
	ck_assert_int_eq(pthread_create(&changer, NULL, changes, NULL), 0);
	for (size_t i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(pthread_create(&client[i], NULL, watches, NULL), 0);
	publish();
	publish();
	if (stops)
		hub_stop(hub, 10);
	for (size_t i = 0; i < CLIENTS; i++)
		pthread_join(client[i], NULL);
	atomic_store(&over, true);
	pthread_join(changer, NULL);
	WAIT_UNTIL(figures().paths == 0 && figures().reading == 0);
	ck_assert_uint_eq(figures().subscriptions, 0);
	ck_assert_uint_eq(figures().waiting, 0);
	ck_assert_uint_eq(figures().body_bytes, 0);
}
END_TEST

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("topics");
	TCase *outbox = tcase_create("outbox"), *t = tcase_create("topics");
	tcase_add_test(outbox, bodies_are_not_of_the_backlog);
	suite_add_tcase(s, outbox);
	tcase_add_unchecked_fixture(t, create_objects, NULL);
	tcase_add_checked_fixture(t, setup_hub, teardown_hub);
	tcase_set_timeout(t, 100);
	tcase_add_test(t, without_live_nothing_is_watched);
	tcase_add_test(t, a_change_is_one_read_and_one_message);
	tcase_add_test(t, reads_outlive_the_hub);
	tcase_add_loop_test(t, threads, 0, 2);
	suite_add_tcase(s, t);
	return pg_run_suite(s);
}
