#include <errno.h>

#include "real_pg.h"

#include "provost/conn.h"
#include "provost/log.h"
#include "provost/pool.h"

enum { SECOND_US = 1000000 };

static struct relay *relay;
static struct pool *pool;

/* ---- helpers ------------------------------------------------------------------------- */

static struct pool_options options(unsigned min, unsigned max, int64_t acquire_ms)
{
	return (struct pool_options){
	    .url = relay->url,
	    .min = min,
	    .max = max,
	    .acquire_timeout_ms = acquire_ms,
	    .prepare = true,
	};
}

static void start(const struct pool_options *o)
{
	pool = pool_new(o);
	ck_assert_int_eq(pool_start(pool), 0);
}

static struct pool_stats stats(void)
{
	struct pool_stats s;
	pool_stats(pool, &s);
	return s;
}

static struct conn *borrow(void)
{
	struct conn *c = NULL;
	ck_assert_int_eq(pool_acquire(pool, false, &c), 0);
	ck_assert_ptr_nonnull(c);
	return c;
}

static void give_back(struct conn *c)
{
	pool_release(pool, &c);
	ck_assert_ptr_null(c);
}

static struct stmt statement(const char *text)
{
	struct stmt s = {.sql = xstrdup(text), .sql_len = strlen(text)};
	stmt_seal(&s);
	return s;
}

static int run(struct conn *c, const char *text, int64_t timeout_ms)
{
	struct stmt s = statement(text);
	_cleanup_result_ struct pg_result *result = NULL;
	int r = conn_run(c, &s, NULL, clock_us() + (uint64_t)timeout_ms * 1000, NULL, &result);
	if (r == 0)
		ck_assert_str_eq(conn_sqlstate(result), "");
	stmt_done(&s);
	return r;
}

/* A port nobody listens on. */
static char *refused_url(void)
{
	struct relay *gone = relay_start(0);
	char *url = xstrdup(gone->url);
	relay_stop(&gone);
	return url;
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	pg_open();
	relay = relay_start(0);
	pool = NULL;
}

static void teardown(void)
{
	if (pool) {
		pool_stop(pool);
		pool_free(&pool);
		ck_assert_ptr_null(pool);
	}
	relay_stop(&relay);
	pg_close();
}

/* Borrowers in threads. */
struct borrower {
	pthread_t thread;
	bool verify;
	const char *text; /* what it runs, if anything */
	int acquired, ran;
	struct conn *conn; /* kept; NULL once given back */
	uint64_t waited_us;
};

static void *borrow_once(void *arg)
{
	struct borrower *b = arg;
	uint64_t begun = clock_us();
	b->acquired = pool_acquire(pool, b->verify, &b->conn);
	b->waited_us = clock_us() - begun;
	if (b->acquired == 0 && b->text) {
		b->ran = run(b->conn, b->text, PATIENCE_MS);
		pool_release(pool, &b->conn);
	}
	return NULL;
}

static void begin(struct borrower *b)
{
	ck_assert_int_eq(pthread_create(&b->thread, NULL, borrow_once, b), 0);
}

static void join(struct borrower *b)
{
	pthread_join(b->thread, NULL);
}

/* ---- borrowing ----------------------------------------------------------------------- */

START_TEST(keeps_min_and_grows_to_max)
{
	struct pool_options o = options(2, 4, PATIENCE_MS);
	struct conn *c[4];
	start(&o);
	WAIT_UNTIL(stats().idle == 2);
	ck_assert(pool_is_up(pool));
	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		c[i] = borrow();
	ck_assert_uint_eq(stats().busy, 4);
	o.acquire_timeout_ms = 200;
	pool_configure(pool, &o);

	struct borrower late = {0};
	begin(&late);
	join(&late);
	ck_assert_int_eq(late.acquired, -ETIMEDOUT);
	ck_assert_uint_ge(late.waited_us, 200000);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 4);

	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		give_back(c[i]);
	ck_assert_uint_eq(stats().idle, 4);
}
END_TEST

START_TEST(serves_in_the_order_of_coming)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	struct borrower b[3] = {{0}};
	start(&o);
	struct conn *c = borrow();
	for (unsigned i = 0; i < ELEMENTSOF(b); i++) {
		begin(&b[i]);
		WAIT_UNTIL(stats().waiting == i + 1);
	}
	for (unsigned i = 0; i < ELEMENTSOF(b); i++) {
		give_back(c);
		join(&b[i]);
		ck_assert_int_eq(b[i].acquired, 0);
		ck_assert_uint_eq(stats().waiting, ELEMENTSOF(b) - 1 - i);
		c = b[i].conn;
	}
	give_back(c);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
}
END_TEST

static atomic_bool over;

/* Borrows `*turns` times, or until it is over; leaves how often that was, which is once at least.
 */
static void *borrow_often(void *arg)
{
	size_t *turns = arg, i = 0;
	do {
		struct conn *c = NULL;
		ck_assert_int_eq(pool_acquire(pool, i % 2, &c), 0);
		ck_assert_int_eq(run(c, i % 3 ? PG_ONE : PG_NONE, PATIENCE_MS), 0);
		pool_release(pool, &c);
	} while (++i < *turns && !atomic_load(&over));
	*turns = i;
	return NULL;
}

START_TEST(many_threads_share_a_few)
{
	struct pool_options o = options(0, 3, PATIENCE_MS);
	pthread_t thread[8];
	size_t turns[8];
	start(&o);
	for (size_t i = 0; i < ELEMENTSOF(thread); i++) {
		turns[i] = 100;
		ck_assert_int_eq(pthread_create(&thread[i], NULL, borrow_often, &turns[i]), 0);
	}
	for (size_t i = 0; i < ELEMENTSOF(thread); i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_eq(atomic_load(&relay->executed), 100 * ELEMENTSOF(thread));
	ck_assert_uint_le(atomic_load(&relay->sessions), 3);
	ck_assert_uint_eq(stats().busy, 0);
	ck_assert_uint_eq(stats().lost, 0);
}
END_TEST

START_TEST(is_configured_while_threads_borrow)
{
	struct pool_options o = options(0, 8, PATIENCE_MS);
	pthread_t thread[4];
	size_t turns[4];
	start(&o);
	for (size_t i = 0; i < ELEMENTSOF(thread); i++) {
		turns[i] = SIZE_MAX;
		ck_assert_int_eq(pthread_create(&thread[i], NULL, borrow_often, &turns[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		struct pool_options other = options(i % 3, 1 + (i + 2) % 4, PATIENCE_MS);
		other.prepare = i % 10 != 0;
		other.max_lifetime_ms = i % 2 ? 1000 : 0;
		pool_configure(pool, &other);
		pool_limit_prepared(pool, 1 + i % 4);
		poll(NULL, 0, 5);
	}
	atomic_store(&over, true);
	for (size_t i = 0; i < ELEMENTSOF(thread); i++)
		pthread_join(thread[i], NULL);
	for (size_t i = 0; i < ELEMENTSOF(thread); i++)
		ck_assert_uint_gt(turns[i], 0);
	ck_assert_uint_eq(stats().lost, 0);
	struct pool_options last = options(2, 2, PATIENCE_MS);
	pool_configure(pool, &last);
	WAIT_UNTIL(stats().idle == 2 && stats().connecting == 0 && stats().draining == 0);
}
END_TEST

START_TEST(closes_what_is_past_the_new_max)
{
	struct pool_options o = options(0, 4, PATIENCE_MS);
	struct conn *c[4];
	start(&o);
	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		c[i] = borrow();
	o.max = 1;
	pool_configure(pool, &o);
	ck_assert_uint_eq(stats().busy, 4);
	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		give_back(c[i]);
	WAIT_UNTIL(stats().idle == 1 && atomic_load(&relay->open) == 1);
	ck_assert_uint_eq(stats().lost, 0);
}
END_TEST

START_TEST(replaces_a_session_that_holds_too_many_statements)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	start(&o);
	pool_limit_prepared(pool, 2);
	const char *const texts[] = {PG_ONE, PG_NONE, "SELECT 3"};
	for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
		struct conn *c = borrow();
		ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
		ck_assert_int_eq(run(c, texts[i], PATIENCE_MS), 0);
		give_back(c);
	}
	WAIT_UNTIL(stats().idle == 1);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 2);
}
END_TEST

START_TEST(ends_lifetimes)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	o.max_lifetime_ms = 1;
	start(&o);
	WAIT_UNTIL(stats().connects >= 3);
	struct conn *c = borrow();
	ck_assert_int_eq(run(c, PG_ONE, PATIENCE_MS), 0);
	give_back(c);
}
END_TEST

/* ---- the database is away ------------------------------------------------------------ */

START_TEST(refuses_at_once_when_the_database_is_down)
{
	_cleanup_free_ char *url = refused_url();
	struct pool_options o = options(1, 4, PATIENCE_MS);
	o.url = url;
	start(&o);
	/* Told as soon as it is known to be down, although they would wait for a minute. */
	struct borrower b[8] = {{0}};
	for (size_t i = 0; i < ELEMENTSOF(b); i++)
		begin(&b[i]);
	for (size_t i = 0; i < ELEMENTSOF(b); i++) {
		join(&b[i]);
		ck_assert_int_eq(b[i].acquired, -ENOTCONN);
		ck_assert_uint_lt(b[i].waited_us, 30 * SECOND_US);
	}
	ck_assert(!pool_is_up(pool));
	ck_assert_uint_ge(stats().failures, 1);
	ck_assert_uint_eq(stats().connects, 0);
}
END_TEST

START_TEST(waits_no_longer_than_told_for_a_silent_database)
{
	struct pool_options o = options(1, 2, 100);
	relay_hold(relay, true);
	start(&o);
	struct borrower b[4] = {{0}};
	for (size_t i = 0; i < ELEMENTSOF(b); i++)
		begin(&b[i]);
	for (size_t i = 0; i < ELEMENTSOF(b); i++) {
		join(&b[i]);
		ck_assert_int_eq(b[i].acquired, -ETIMEDOUT);
		ck_assert_uint_ge(b[i].waited_us, 100000);
		ck_assert_uint_lt(b[i].waited_us, 30 * SECOND_US);
	}
	ck_assert_uint_eq(stats().waiting, 0);
	ck_assert_uint_eq(stats().connects, 0);

	relay_hold(relay, false);
	WAIT_UNTIL(stats().connects > 0);
}
END_TEST

START_TEST(heals_when_the_database_is_back)
{
	struct pool_options o = options(2, 4, PATIENCE_MS);
	unsigned port = relay->port;
	start(&o);
	WAIT_UNTIL(stats().idle == 2);
	relay_stop(&relay);
	WAIT_UNTIL(!pool_is_up(pool) && stats().lost == 2);
	struct conn *c = NULL;
	ck_assert_int_eq(pool_acquire(pool, false, &c), -ENOTCONN);

	relay = relay_start(port);
	WAIT_UNTIL(pool_is_up(pool));
	WAIT_UNTIL(stats().idle == 2);
	c = borrow();
	ck_assert_int_eq(run(c, PG_ONE, PATIENCE_MS), 0);
	give_back(c);
}
END_TEST

/* They die without a word, and with the last words of an administrator's command. */
START_TEST(passes_over_connections_that_died_while_idle)
{
	struct pool_options o = options(0, 3, PATIENCE_MS);
	struct conn *c[3];
	start(&o);
	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		c[i] = borrow();
	for (size_t i = 0; i < ELEMENTSOF(c); i++)
		give_back(c[i]);
	if (_i == 0)
		relay_cut(relay);
	else
		ck_assert_uint_eq(pg_sessions("count(pg_terminate_backend(pid))"), 3);
	WAIT_UNTIL(atomic_load(&relay->open) == 0);

	struct conn *good = NULL;
	ck_assert_int_eq(pool_acquire(pool, true, &good), 0);
	ck_assert_int_eq(run(good, PG_ONE, PATIENCE_MS), 0);
	give_back(good);
	ck_assert_uint_eq(stats().lost, 3);
}
END_TEST

START_TEST(closes_a_connection_that_died_in_use)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	struct borrower b = {.text = PG_HANG};
	start(&o);
	begin(&b);
	WAIT_UNTIL(pg_running() == 1);
	relay_cut(relay);
	join(&b);
	ck_assert_int_eq(b.ran, -ECONNRESET);
	ck_assert_uint_eq(stats().lost, 1);
	struct conn *c = borrow();
	ck_assert_int_eq(run(c, PG_ONE, PATIENCE_MS), 0);
	give_back(c);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 2);
	/* Nobody cancelled it: its server has noticed that we are gone. */
	WAIT_UNTIL(pg_running() == 0);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 0);
}
END_TEST

/* ---- cancelled ----------------------------------------------------------------------- */

START_TEST(a_statement_past_its_deadline_is_cancelled_and_drained)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	start(&o);
	for (unsigned i = 1; i <= 3; i++) {
		struct conn *c = borrow();
		uint64_t begun = clock_us();
		ck_assert_int_eq(run(c, PG_HANG, 200), -ETIMEDOUT);
		ck_assert_uint_ge(clock_us() - begun, 200000);
		ck_assert_int_eq(conn_condition(c), CONN_DIRTY);
		WAIT_UNTIL(pg_running() == 1);
		give_back(c);
		/* The next borrower gets it clean, with nothing of the last one in it. */
		c = borrow();
		ck_assert_int_eq(conn_condition(c), CONN_CLEAN);
		ck_assert_uint_eq(pg_running(), 0);
		ck_assert_int_eq(run(c, "SELECT pg_sleep(0.05)", PATIENCE_MS), 0);
		give_back(c);
		ck_assert_uint_ge(atomic_load(&relay->cancels), i); /* again where it takes long */
		ck_assert_uint_eq(stats().cancels, atomic_load(&relay->cancels));
	}
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
}
END_TEST

/* A server says nothing of a request to cancel that it did not heed. */
START_TEST(a_cancel_that_was_lost_is_sent_again)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	start(&o);
	struct conn *c = borrow();
	atomic_store(&relay->losing, 3);
	ck_assert_int_eq(run(c, PG_HANG, 200), -ETIMEDOUT);
	WAIT_UNTIL(pg_running() == 1);
	give_back(c);
	c = borrow();
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1); /* not one in its place */
	ck_assert_uint_eq(pg_running(), 0);
	ck_assert_uint_eq(atomic_load(&relay->losing), 0);
	ck_assert_uint_ge(stats().cancels, 4);
	ck_assert_uint_eq(stats().lost, 0);
	ck_assert_int_eq(run(c, PG_ONE, PATIENCE_MS), 0);
	give_back(c);
}
END_TEST

/* One request ends one statement; each of those that were sent with it begins when it has ended. */
START_TEST(all_that_was_sent_together_is_cancelled)
{
	struct pool_options o = options(1, 1, PATIENCE_MS);
	struct conn_step step[10];
	start(&o);
	struct conn *c = borrow();
	for (size_t i = 0; i < ELEMENTSOF(step); i++)
		step[i] = (struct conn_step){.sql = PG_HANG, .sync = true};
	ck_assert_int_eq(conn_pipeline_begin(c, step, ELEMENTSOF(step), NULL), 0);
	WAIT_UNTIL(pg_running() == 1);
	conn_pipeline_end(c);
	give_back(c);
	c = borrow();
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
	ck_assert_uint_eq(pg_running(), 0);
	ck_assert_int_eq(run(c, PG_ONE, PATIENCE_MS), 0);
	give_back(c);
}
END_TEST

/* The statement ends by itself while the request to cancel it is still under way: until that has
 * arrived nobody gets the connection, or it would hit what is run next. */
START_TEST(a_cancel_that_comes_late_hits_nobody)
{
	struct pool_options o = options(1, 1, 200);
	start(&o);
	WAIT_UNTIL(stats().idle == 1);
	struct conn *c = borrow();
	relay_hold(relay, true);
	close_gate();
	ck_assert_int_eq(run(c, PG_GATED, 20), -ETIMEDOUT);
	give_back(c);
	open_gate();
	WAIT_UNTIL(pg_sessions(
	               "count(*) FILTER (WHERE state = 'idle' AND query LIKE '%shared(77)')") == 1);
	c = NULL;
	ck_assert_int_eq(pool_acquire(pool, false, &c), -ETIMEDOUT);
	ck_assert_uint_eq(stats().draining, 1);

	relay_hold(relay, false);
	WAIT_UNTIL(stats().idle == 1);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 1);
	c = borrow();
	ck_assert_int_eq(run(c, "SELECT pg_sleep(0.05)", PATIENCE_MS), 0);
	give_back(c);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
}
END_TEST

/* Who asks for it goes on receiving; the connection comes back when the request has arrived, also
 * if the statement was faster. */
START_TEST(a_borrower_may_cancel_and_see_how_it_ends)
{
	bool late = _i;
	struct pool_options o = options(1, 1, 200);
	start(&o);
	WAIT_UNTIL(stats().idle == 1);
	struct conn *c = borrow();
	struct conn_step step[] = {
	    {.sql = late ? PG_GATED : PG_HANG, .sync = true},
	    {.sql = "SELECT 1", .sync = true},
	};
	relay_hold(relay, late);
	close_gate();
	ck_assert_int_eq(conn_pipeline_begin(c, step, ELEMENTSOF(step), NULL), 0);
	ck_assert_int_eq(conn_pipeline_next(c, clock_us() + 20000), -ETIMEDOUT);
	WAIT_UNTIL(pg_running() == 1); /* or it would not heed the cancel */
	ck_assert_int_eq(pool_cancel(pool, c), 0);
	open_gate();
	ck_assert_int_eq(conn_pipeline_next(c, clock_us() + 60 * SECOND_US), 1);
	ck_assert_str_eq(conn_sqlstate(step[0].result), late ? "" : "57014");
	ck_assert_int_eq(conn_pipeline_next(c, clock_us() + 60 * SECOND_US), 0);
	ck_assert_str_eq(conn_tag(step[1].result), "SELECT 1");
	conn_pipeline_end(c);
	conn_result_free(&step[0].result);
	conn_result_free(&step[1].result);
	give_back(c);
	if (late) {
		ck_assert_int_eq(pool_acquire(pool, false, &c), -ETIMEDOUT);
		ck_assert_uint_eq(stats().draining, 1);
		relay_hold(relay, false);
	}
	WAIT_UNTIL(stats().idle == 1);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 1);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------- */

START_TEST(stop_refuses_those_who_wait)
{
	struct pool_options o = options(1, 1, 60000);
	struct borrower b[4] = {{0}};
	start(&o);
	struct conn *c = borrow();
	for (size_t i = 0; i < ELEMENTSOF(b); i++)
		begin(&b[i]);
	WAIT_UNTIL(stats().waiting == ELEMENTSOF(b));
	pool_stop(pool);
	for (size_t i = 0; i < ELEMENTSOF(b); i++) {
		join(&b[i]);
		ck_assert_int_eq(b[i].acquired, -ESHUTDOWN);
	}
	struct conn *none = NULL;
	ck_assert_int_eq(pool_acquire(pool, false, &none), -ESHUTDOWN);
	ck_assert_ptr_null(none);
	give_back(c); /* late, but before pool_free */
}
END_TEST

START_TEST(interrupt_ends_what_runs_and_what_waits)
{
	struct pool_options o = options(0, 2, 60000);
	struct borrower b[4] = {
	    {.text = PG_HANG}, {.text = PG_HANG}, {.text = PG_HANG}, {.text = PG_HANG}};
	start(&o);
	for (size_t i = 0; i < ELEMENTSOF(b); i++)
		begin(&b[i]);
	WAIT_UNTIL(stats().busy == 2 && stats().waiting == 2 && pg_running() == 2);
	pool_interrupt(pool);
	unsigned cancelled = 0, refused = 0;
	for (size_t i = 0; i < ELEMENTSOF(b); i++) {
		join(&b[i]);
		cancelled += b[i].acquired == 0 && b[i].ran == -ECANCELED;
		refused += b[i].acquired == -ESHUTDOWN;
	}
	ck_assert_uint_eq(cancelled, 2);
	ck_assert_uint_eq(refused, 2);
	/* Their statements are ended in the server as well. */
	WAIT_UNTIL(pg_running() == 0);
	ck_assert_uint_ge(atomic_load(&relay->cancels), 2);
}
END_TEST

START_TEST(stop_without_a_start_and_with_nothing_borrowed)
{
	struct pool_options o = options(2, 4, 1000);
	pool = pool_new(&o);
	pool_stop(pool);
	pool_free(&pool);
	start(&o);
	pool_stop(pool);
	pool_free(&pool);
	pool_free(&pool);
}
END_TEST

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("pool");
	TCase *c = tcase_create("pool");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, keeps_min_and_grows_to_max);
	tcase_add_test(c, serves_in_the_order_of_coming);
	tcase_add_test(c, many_threads_share_a_few);
	tcase_add_test(c, is_configured_while_threads_borrow);
	tcase_add_test(c, closes_what_is_past_the_new_max);
	tcase_add_test(c, replaces_a_session_that_holds_too_many_statements);
	tcase_add_test(c, ends_lifetimes);
	tcase_add_test(c, refuses_at_once_when_the_database_is_down);
	tcase_add_test(c, waits_no_longer_than_told_for_a_silent_database);
	tcase_add_test(c, heals_when_the_database_is_back);
	tcase_add_loop_test(c, passes_over_connections_that_died_while_idle, 0, 2);
	tcase_add_test(c, closes_a_connection_that_died_in_use);
	tcase_add_test(c, a_statement_past_its_deadline_is_cancelled_and_drained);
	tcase_add_test(c, a_cancel_that_was_lost_is_sent_again);
	tcase_add_test(c, all_that_was_sent_together_is_cancelled);
	tcase_add_test(c, a_cancel_that_comes_late_hits_nobody);
	tcase_add_loop_test(c, a_borrower_may_cancel_and_see_how_it_ends, 0, 2);
	tcase_add_test(c, stop_refuses_those_who_wait);
	tcase_add_test(c, interrupt_ends_what_runs_and_what_waits);
	tcase_add_test(c, stop_without_a_start_and_with_nothing_borrowed);
	suite_add_tcase(s, c);
	conn_global_init();
	return pg_run_suite(s);
}
