#include <errno.h>

#include "real_pg.h"

#include "provost/conn.h"
#include "provost/engine.h"
#include "provost/log.h"
#include "provost/pool.h"

static struct relay *relay;
static struct pool *pool;
static struct engine *engine;

/* ---- helpers ------------------------------------------------------------------------- */

/* A request of a test: its job, and what became of it. */
struct asked {
	struct job job;
	struct endpoint endpoint;
	atomic_uint done; /* calls; a job has exactly one */
};

static void count_done(struct job *j)
{
	struct asked *a = (struct asked *)((char *)j - offsetof(struct asked, job));
	atomic_fetch_add(&a->done, 1);
}

static char endpoint_name[] = "test";

static void prepare(struct asked *a, const char *text, int64_t timeout_ms)
{
	*a = (struct asked){0};
	a->endpoint.name = endpoint_name;
	a->endpoint.returns = RETURNS_JSON;
	a->endpoint.timeout_ms = timeout_ms;
	a->endpoint.stmt = (struct stmt){.sql = xstrdup(text), .sql_len = strlen(text)};
	stmt_seal(&a->endpoint.stmt);
	a->job = (struct job){.endpoint = &a->endpoint, .request_id = "r", .done = count_done};
}

static int submit(struct asked *a, const char *text, int64_t timeout_ms)
{
	prepare(a, text, timeout_ms);
	return engine_submit(engine, &a->job);
}

static void end(struct asked *a)
{
	answer_done(&a->job.answer);
	stmt_done(&a->endpoint.stmt);
}

static bool is_done(struct asked *a)
{
	return atomic_load(&a->done) > 0;
}

/* Asks, waits, and gives the outcome; the answer stays with `a`. */
static enum outcome ask(struct asked *a, const char *text, int64_t timeout_ms)
{
	ck_assert_int_eq(submit(a, text, timeout_ms), 0);
	WAIT_UNTIL(is_done(a));
	return a->job.answer.outcome;
}

static struct engine_stats stats(void)
{
	struct engine_stats s;
	engine_stats(engine, &s);
	return s;
}

static struct engine_options options(unsigned threads, unsigned queue)
{
	return (struct engine_options){
	    .threads = threads,
	    .queue = queue,
	    .queue_timeout_ms = 60000,
	    .statement_timeout_ms = 30000,
	};
}

static void start(const char *url, unsigned pool_max, int64_t acquire_ms,
                  const struct engine_options *o)
{
	struct pool_options p = {.url = (char *)(uintptr_t)url,
	                         .max = pool_max,
	                         .acquire_timeout_ms = acquire_ms,
	                         .prepare = true};
	pool = pool_new(&p);
	ck_assert_int_eq(pool_start(pool), 0);
	engine = engine_new(o, pool);
	ck_assert_int_eq(engine_start(engine), 0);
}

static void start_usual(void)
{
	struct engine_options o = options(2, 100);
	start(relay->url, 2, 10000, &o);
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	pg_open();
	relay = relay_start(0);
	engine = NULL;
	pool = NULL;
}

static void teardown(void)
{
	if (engine)
		engine_stop(engine, 0);
	if (pool)
		pool_stop(pool);
	engine_free(&engine);
	pool_free(&pool);
	relay_stop(&relay);
	pg_close();
}

#define CONFLICT "SELECT test_engine.conflict()"
#define REFUSED  "SELECT * FROM test_engine.refused"

/* Once for all tests: what CONFLICT and REFUSED need. */
static void create_objects(void)
{
	pg_open();
	pg_ask("SET client_min_messages = error;"
	       "DROP SCHEMA IF EXISTS test_engine CASCADE;"
	       "CREATE SCHEMA test_engine;"
	       "GRANT USAGE ON SCHEMA test_engine TO public;"
	       "CREATE TABLE test_engine.refused (a json);"
	       "CREATE FUNCTION test_engine.conflict() RETURNS json LANGUAGE plpgsql AS "
	       "$$BEGIN RAISE SQLSTATE '40001'; END$$");
	pg_close();
}

/* ---- outcomes ------------------------------------------------------------------------ */

START_TEST(answers)
{
	struct asked a;
	start_usual();
	ck_assert_int_eq(ask(&a, PG_ONE, -1), OUTCOME_OK);
	ck_assert_uint_eq(a.job.answer.body_len, 1);
	ck_assert_int_eq(*a.job.answer.body, '1');
	ck_assert_uint_eq(strlen(a.job.answer.etag), 32);
	end(&a);
	ck_assert_int_eq(ask(&a, PG_NONE, -1), OUTCOME_NO_ROW);
	end(&a);
	ck_assert_int_eq(ask(&a, REFUSED, -1), OUTCOME_SQL_ERROR);
	ck_assert_str_eq(a.job.answer.sqlstate, "42501");
	ck_assert_str_eq(a.job.answer.message, "permission denied for table refused");
	end(&a);
	ck_assert_uint_eq(stats().jobs, 3);
	ck_assert_uint_eq(stats().retries, 0);
}
END_TEST

START_TEST(a_conflict_is_retried_three_times)
{
	struct asked a;
	start_usual();
	ck_assert_int_eq(ask(&a, CONFLICT, -1), OUTCOME_SQL_ERROR);
	ck_assert_str_eq(a.job.answer.sqlstate, "40001");
	ck_assert_uint_eq(atomic_load(&relay->executed), 4);
	ck_assert_uint_eq(stats().retries, 3);
	end(&a);
}
END_TEST

START_TEST(a_lost_connection_is_followed_once)
{
	struct asked a;
	start_usual();
	ck_assert_int_eq(submit(&a, PG_HANG, -1), 0);
	for (unsigned i = 1; i <= 2; i++) {
		WAIT_UNTIL(atomic_load(&relay->executed) == i);
		relay_cut(relay);
	}
	WAIT_UNTIL(is_done(&a));
	ck_assert_int_eq(a.job.answer.outcome, OUTCOME_DB_LOST);
	ck_assert_uint_eq(atomic_load(&relay->executed), 2);
	ck_assert_uint_eq(stats().retries, 1);
	end(&a);
	ck_assert_int_eq(ask(&a, PG_ONE, -1), OUTCOME_OK);
	end(&a);
}
END_TEST

START_TEST(an_ended_connection_is_followed_five_times)
{
	struct asked a;
	start_usual();
	ck_assert_int_eq(ask(&a, PG_TERMINATED, -1), OUTCOME_DB_LOST);
	ck_assert_uint_eq(atomic_load(&relay->executed), 6);
	end(&a);
	ck_assert_int_eq(ask(&a, PG_ONE, -1), OUTCOME_OK);
	end(&a);
}
END_TEST

START_TEST(a_statement_has_its_own_deadline)
{
	struct asked a;
	start_usual();
	for (unsigned i = 1; i <= 3; i++) {
		uint64_t begun = clock_us();
		ck_assert_int_eq(ask(&a, PG_HANG, 200), OUTCOME_DEADLINE);
		ck_assert_uint_ge(clock_us() - begun, 200000);
		ck_assert_uint_ge(a.job.answer.db_us, 200000);
		end(&a);
		WAIT_UNTIL(atomic_load(&relay->cancels) == i && pg_running() == 0);
	}
	struct engine_options o = options(2, 100);
	o.statement_timeout_ms = 40;
	ck_assert_int_eq(engine_configure(engine, &o), 0);
	ck_assert_int_eq(ask(&a, PG_HANG, -1), OUTCOME_DEADLINE);
	end(&a);
}
END_TEST

START_TEST(the_database_is_down)
{
	struct relay *gone = relay_start(0);
	_cleanup_free_ char *url = xstrdup(gone->url);
	relay_stop(&gone);
	struct engine_options o = options(4, 100);
	struct asked a[8];
	start(url, 4, 60000, &o);
	uint64_t begun = clock_us();
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(submit(&a[i], PG_ONE, -1), 0);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		WAIT_UNTIL(is_done(&a[i]));
		ck_assert_int_eq(a[i].job.answer.outcome, OUTCOME_DB_DOWN);
		end(&a[i]);
	}
	ck_assert_uint_lt(clock_us() - begun, 5000000);
}
END_TEST

START_TEST(the_database_is_silent)
{
	struct engine_options o = options(2, 100);
	struct asked a[4];
	relay_hold(relay, true);
	start(relay->url, 2, 50, &o);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(submit(&a[i], PG_ONE, -1), 0);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		WAIT_UNTIL(is_done(&a[i]));
		ck_assert_int_eq(a[i].job.answer.outcome, OUTCOME_POOL_TIMEOUT);
		ck_assert_uint_ge(a[i].job.answer.queue_us, 50000);
		end(&a[i]);
	}
}
END_TEST

/* ---- the queue ----------------------------------------------------------------------- */

/* One worker, busy until it is cancelled, and `n` jobs behind it. */
static void keep_waiting(struct asked *busy, struct asked *waiting, size_t n)
{
	ck_assert_int_eq(submit(busy, PG_HANG, -1), 0);
	WAIT_UNTIL(pg_running() == 1);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(submit(&waiting[i], PG_ONE, -1), 0);
	ck_assert_uint_eq(stats().waiting, n);
	ck_assert_uint_eq(stats().busy, 1);
}

START_TEST(a_full_queue_refuses)
{
	struct engine_options o = options(1, 2);
	struct asked busy, waiting[2], more;
	start(relay->url, 1, 10000, &o);
	keep_waiting(&busy, waiting, 2);
	ck_assert_int_eq(submit(&more, PG_ONE, -1), -EAGAIN);
	ck_assert(!is_done(&more));
	end(&more);
	ck_assert_uint_eq(stats().refused, 1);
	o.queue = 3;
	ck_assert_int_eq(engine_configure(engine, &o), 0);
	ck_assert_int_eq(submit(&more, PG_ONE, -1), 0);

	engine_stop(engine, 0);
	ck_assert_int_eq(busy.job.answer.outcome, OUTCOME_STOPPING);
	ck_assert_int_eq(more.job.answer.outcome, OUTCOME_STOPPING);
	end(&busy);
	end(&more);
	end(&waiting[0]);
	end(&waiting[1]);
}
END_TEST

START_TEST(jobs_expire_in_the_queue)
{
	struct engine_options o = options(1, 10);
	struct asked busy, waiting[3];
	start(relay->url, 1, 10000, &o);
	keep_waiting(&busy, waiting, 3);
	uint64_t oldest = waiting[0].job.submitted_us, newest = waiting[2].job.submitted_us;

	engine_expire(engine, oldest + 60000000 - 1);
	ck_assert_uint_eq(stats().expired, 0);
	engine_expire(engine, newest + 60000000);
	ck_assert_uint_eq(stats().expired, 3);
	ck_assert_uint_eq(stats().waiting, 0);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++) {
		ck_assert_uint_eq(atomic_load(&waiting[i].done), 1);
		ck_assert_int_eq(waiting[i].job.answer.outcome, OUTCOME_QUEUE_TIMEOUT);
		end(&waiting[i]);
	}
	ck_assert(!is_done(&busy));
	engine_stop(engine, 0);
	end(&busy);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------- */

START_TEST(stop_answers_what_waits_and_lets_finish_what_runs)
{
	struct engine_options o = options(1, 10);
	struct asked busy, waiting[3], late;
	start(relay->url, 1, 10000, &o);
	prepare(&busy, PG_HANG, 500);
	ck_assert_int_eq(engine_submit(engine, &busy.job), 0);
	WAIT_UNTIL(pg_running() == 1);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++)
		ck_assert_int_eq(submit(&waiting[i], PG_ONE, -1), 0);

	engine_stop(engine, clock_us() + 10000000);
	ck_assert_uint_eq(atomic_load(&busy.done), 1);
	ck_assert_int_eq(busy.job.answer.outcome, OUTCOME_DEADLINE);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++) {
		ck_assert_uint_eq(atomic_load(&waiting[i].done), 1);
		ck_assert_int_eq(waiting[i].job.answer.outcome, OUTCOME_STOPPING);
		end(&waiting[i]);
	}
	end(&busy);
	ck_assert_int_eq(submit(&late, PG_ONE, -1), -ESHUTDOWN);
	ck_assert(!is_done(&late));
	end(&late);
}
END_TEST

START_TEST(stop_waits_no_longer_than_told)
{
	struct engine_options o = options(4, 10);
	struct asked a[4];
	start(relay->url, 2, 60000, &o); /* two run, two wait for a connection */
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(submit(&a[i], PG_HANG, -1), 0);
	WAIT_UNTIL(stats().busy == 4 && pg_running() == 2);
	uint64_t begun = clock_us();
	engine_stop(engine, begun + 100000);
	ck_assert_uint_ge(clock_us() - begun, 100000);
	ck_assert_uint_lt(clock_us() - begun, 5000000);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_uint_eq(atomic_load(&a[i].done), 1);
		ck_assert_int_eq(a[i].job.answer.outcome, OUTCOME_STOPPING);
		end(&a[i]);
	}
}
END_TEST

/* ---- threads ------------------------------------------------------------------------- */

enum { SUBMITTERS = 4, EACH = 150 };

static atomic_bool over;

/* Submits one after the other; every job that was accepted is done exactly once. */
static void *submit_often(void *arg)
{
	unsigned *accepted = arg;
	while (*accepted < EACH) {
		struct asked a;
		int r = submit(&a, *accepted % 5 ? PG_ONE : PG_NONE, -1);
		if (r == 0) {
			WAIT_UNTIL(is_done(&a));
			enum outcome o = a.job.answer.outcome;
			ck_assert(o == OUTCOME_OK || o == OUTCOME_NO_ROW ||
			          o == OUTCOME_QUEUE_TIMEOUT || o == OUTCOME_STOPPING);
			ck_assert_uint_eq(atomic_load(&a.done), 1);
			++*accepted;
		}
		end(&a);
		if (r == -ESHUTDOWN)
			break;
		if (r < 0)
			poll(NULL, 0, 1); /* full: nobody gains by asking at once again */
	}
	return NULL;
}

static void *expire_always(void *arg)
{
	(void)arg;
	/* As if each job had waited for almost its whole time: the janitor and the workers race. */
	while (!atomic_load(&over)) {
		engine_expire(engine, clock_us() + 60000000 - 500);
		sched_yield(); /* or who spins on the lock keeps it from the others */
	}
	return NULL;
}

static void begin(pthread_t *thread, void *(*run)(void *), void *arg)
{
	ck_assert_int_eq(pthread_create(thread, NULL, run, arg), 0);
}

START_TEST(is_configured_while_threads_submit)
{
	pthread_t thread[SUBMITTERS];
	unsigned accepted[SUBMITTERS] = {0};
	struct engine_options o = options(2, 100);
	start(relay->url, 3, 10000, &o);
	for (size_t i = 0; i < SUBMITTERS; i++)
		begin(&thread[i], submit_often, &accepted[i]);
	for (unsigned i = 0; i < 60; i++) {
		o.threads = 1 + i * 7 % 5;
		ck_assert_int_eq(engine_configure(engine, &o), 0);
		poll(NULL, 0, 1);
	}
	for (size_t i = 0; i < SUBMITTERS; i++)
		pthread_join(thread[i], NULL);
	for (size_t i = 0; i < SUBMITTERS; i++)
		ck_assert_uint_eq(accepted[i], EACH);
	ck_assert_uint_eq(stats().jobs, SUBMITTERS * EACH);
	ck_assert_uint_eq(stats().busy, 0);
}
END_TEST

START_TEST(each_job_is_done_once_whoever_takes_it)
{
	pthread_t thread[SUBMITTERS], janitor;
	unsigned accepted[SUBMITTERS] = {0};
	struct engine_options o = options(2, 2);
	start(relay->url, 2, 10000, &o);
	atomic_store(&over, false);
	begin(&janitor, expire_always, NULL);
	for (size_t i = 0; i < SUBMITTERS; i++)
		begin(&thread[i], submit_often, &accepted[i]);
	WAIT_UNTIL(stats().jobs >= SUBMITTERS * EACH / 2);
	engine_stop(engine, clock_us() + 10000000);
	for (size_t i = 0; i < SUBMITTERS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&over, true);
	pthread_join(janitor, NULL);
	unsigned sum = 0;
	for (size_t i = 0; i < SUBMITTERS; i++)
		sum += accepted[i];
	ck_assert_uint_eq(stats().jobs, sum);
	ck_assert_uint_eq(stats().waiting, 0);
	ck_assert_uint_eq(stats().busy, 0);
}
END_TEST

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("engine");
	TCase *c = tcase_create("engine");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, answers);
	tcase_add_test(c, a_conflict_is_retried_three_times);
	tcase_add_test(c, a_lost_connection_is_followed_once);
	tcase_add_test(c, an_ended_connection_is_followed_five_times);
	tcase_add_test(c, a_statement_has_its_own_deadline);
	tcase_add_test(c, the_database_is_down);
	tcase_add_test(c, the_database_is_silent);
	tcase_add_test(c, a_full_queue_refuses);
	tcase_add_test(c, jobs_expire_in_the_queue);
	tcase_add_test(c, stop_answers_what_waits_and_lets_finish_what_runs);
	tcase_add_test(c, stop_waits_no_longer_than_told);
	tcase_add_test(c, is_configured_while_threads_submit);
	tcase_add_test(c, each_job_is_done_once_whoever_takes_it);
	suite_add_tcase(s, c);
	conn_global_init();
	return pg_run_suite(s);
}
