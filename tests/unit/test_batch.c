#include "engine_fixture.h"

/* ---- helpers ------------------------------------------------------------------------- */

#define REFUSED  "SELECT * FROM test_batch.refused"
#define CONFLICT "SELECT test_batch.conflict()"
#define HALF     "SELECT '1'::json FROM pg_sleep(0.05)"

/* Submits those that were prepared. */
static void submit_batch_for(struct asked *a, size_t n, struct asked *const *like, int *ret)
{
	struct ask asks[BATCH_MAX];
	struct waiter *waiter[BATCH_MAX];
	for (size_t i = 0; i < n; i++) {
		asks[i] = what(like ? like[i] : &a[i]);
		waiter[i] = &a[i].waiter;
	}
	engine_submit_batch(engine, asks, waiter, ret, n);
}

static void submit_prepared(struct asked *a, size_t n)
{
	int ret[BATCH_MAX];
	submit_batch_for(a, n, NULL, ret);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(ret[i], 0);
}

static void prepare_all(struct asked *a, const char *const *text, size_t n, int64_t timeout_ms)
{
	for (size_t i = 0; i < n; i++)
		prepare(&a[i], text[i], timeout_ms);
}

static void submit_batch(struct asked *a, const char *const *text, size_t n)
{
	prepare_all(a, text, n, -1);
	submit_prepared(a, n);
}

static enum outcome outcome_of(struct asked *a)
{
	WAIT_UNTIL(is_done(a));
	ck_assert_uint_eq(atomic_load(&a->done), 1);
	return answer_of(a)->outcome;
}

static void end_all(struct asked *a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		end(&a[i]);
}

static unsigned executed(void)
{
	return atomic_load(&relay->executed);
}

#define BATCH(a, text) submit_batch(a, text, ELEMENTSOF(text))

/* ---- together ------------------------------------------------------------------------ */

/* All have been sent when the first has yet to be answered. */
START_TEST(statements_are_one_round_trip)
{
	static const char *const text[] = {PG_GATED, PG_ONE, PG_NONE, "SELECT '2'::json", PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	close_gate();
	BATCH(a, text);
	WAIT_UNTIL(pg_running() == 1 && executed() == ELEMENTSOF(text));
	ck_assert_uint_eq(stats().busy, 1);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert(!is_done(&a[i]));
	open_gate();
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_int_eq(outcome_of(&a[i]), i == 2 ? OUTCOME_NO_ROW : OUTCOME_OK);
		ck_assert(!a[i].waiter.collapsed);
	}
	ck_assert_int_eq(*answer_of(&a[3])->body, '2');
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().jobs, ELEMENTSOF(text));
	ck_assert_uint_eq(stats().statements, ELEMENTSOF(text));
	ck_assert_uint_eq(stats().retries, 0);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(each_is_answered_when_its_result_is_there)
{
	static const char *const text[] = {PG_ONE, PG_GATED, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	close_gate();
	BATCH(a, text);
	ck_assert_int_eq(outcome_of(&a[0]), OUTCOME_OK);
	ck_assert(!is_done(&a[1]) && !is_done(&a[2]));
	open_gate();
	ck_assert_int_eq(outcome_of(&a[1]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[2]), OUTCOME_OK);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(a_failure_does_not_spoil_the_others)
{
	static const char *const text[] = {PG_ONE, REFUSED, PG_ONE, "SELECT (1/0)::text::json",
	                                   PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	BATCH(a, text);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), i % 2 ? OUTCOME_SQL_ERROR : OUTCOME_OK);
	ck_assert_str_eq(answer_of(&a[1])->sqlstate, "42501");
	ck_assert_str_eq(answer_of(&a[3])->sqlstate, "22012");
	ck_assert_uint_eq(stats().retries, 0);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(as_many_as_may_be)
{
	static struct asked a[BATCH_MAX];
	start_usual();
	for (size_t i = 0; i < BATCH_MAX; i++)
		prepare(&a[i], PG_ONE, -1);
	submit_prepared(a, BATCH_MAX);
	for (size_t i = 0; i < BATCH_MAX; i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_OK);
	end_all(a, BATCH_MAX);
}
END_TEST

START_TEST(none_and_one_are_no_batch)
{
	struct asked a;
	start_usual();
	submit_prepared(NULL, 0);
	prepare(&a, PG_ONE, -1);
	submit_prepared(&a, 1);
	ck_assert_int_eq(outcome_of(&a), OUTCOME_OK);
	ck_assert_uint_eq(stats().jobs, 1);
	end(&a);
}
END_TEST

START_TEST(answers_are_stored_and_found)
{
	static const char *const text[] = {PG_ONE, PG_NONE, PG_ONE, PG_ONE};
	struct asked a[ELEMENTSOF(text)], b[ELEMENTSOF(text)];
	struct asked *like[] = {&a[0], &a[1], &a[2], &b[3]};
	int ret[ELEMENTSOF(text)];
	start_usual();
	prepare_all(a, text, ELEMENTSOF(a), -1);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		a[i].endpoint.cache.off = false;
	submit_prepared(a, ELEMENTSOF(a));
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_int_eq(outcome_of(&a[i]), i == 1 ? OUTCOME_NO_ROW : OUTCOME_OK);
		ck_assert(a[i].waiter.job->stored);
	}
	prepare_all(b, text, ELEMENTSOF(b), -1);
	submit_batch_for(b, ELEMENTSOF(b), like, ret);
	for (size_t i = 0; i < ELEMENTSOF(b); i++)
		ck_assert_int_eq(outcome_of(&b[i]), i == 1 ? OUTCOME_NO_ROW : OUTCOME_OK);
	ck_assert_uint_eq(executed(), ELEMENTSOF(a) + 1); /* three were there */
	end_all(b, ELEMENTSOF(b));
	end_all(a, ELEMENTSOF(a));
}
END_TEST

/* ---- sharing ------------------------------------------------------------------------- */

START_TEST(members_are_shared_while_they_wait_and_while_they_run)
{
	static const char *const text[] = {PG_GATED, PG_ONE, PG_ONE};
	struct engine_options o = options(1, 100);
	struct asked a[ELEMENTSOF(text)], busy, more[4];
	struct asked *like[] = {&a[1], &a[2]};
	int ret[2];
	start(relay->url, 1, PATIENCE_MS, &o);
	close_gate();
	ck_assert_int_eq(submit(&busy, PG_GATED, -1), 0);
	WAIT_UNTIL(pg_running() == 1);
	BATCH(a, text);
	ck_assert_uint_eq(stats().waiting, 3);
	prepare(&more[0], PG_ONE, -1);
	ck_assert_int_eq(submit_for(&more[0], &a[1]), 0);
	prepare(&more[1], PG_ONE, -1);
	prepare(&more[2], PG_ONE, -1);
	submit_batch_for(&more[1], 2, like, ret);
	ck_assert_uint_eq(stats().waiting, 3);
	open_gate();
	ck_assert_int_eq(outcome_of(&busy), OUTCOME_OK);
	close_gate();
	prepare(&more[3], PG_ONE, -1);
	ck_assert_int_eq(submit_for(&more[3], &a[2]), 0);
	open_gate();
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_OK);
	for (size_t i = 0; i < 3; i++) {
		ck_assert_int_eq(outcome_of(&more[i]), OUTCOME_OK);
		ck_assert(more[i].waiter.collapsed);
		ck_assert_ptr_eq(more[i].waiter.job, a[i == 2 ? 2 : 1].waiter.job);
	}
	ck_assert_int_eq(outcome_of(&more[3]), OUTCOME_OK);
	end_all(more, ELEMENTSOF(more));
	end_all(a, ELEMENTSOF(a));
	end(&busy);
}
END_TEST

START_TEST(a_running_member_is_shared)
{
	static const char *const text[] = {PG_GATED, PG_ONE};
	struct asked a[ELEMENTSOF(text)], later;
	start_usual();
	close_gate();
	BATCH(a, text);
	WAIT_UNTIL(pg_running() == 1);
	prepare(&later, PG_ONE, -1);
	ck_assert_int_eq(submit_for(&later, &a[1]), 0);
	open_gate();
	ck_assert_int_eq(outcome_of(&later), OUTCOME_OK);
	ck_assert_ptr_eq(later.waiter.job, a[1].waiter.job);
	ck_assert_uint_eq(executed(), 2);
	end(&later);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(equal_members_are_one)
{
	struct asked a[3];
	struct asked *like[] = {&a[0], &a[0], &a[2]};
	int ret[3];
	start_usual();
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		prepare(&a[i], PG_ONE, -1);
	submit_batch_for(a, ELEMENTSOF(a), like, ret);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_OK);
	ck_assert_ptr_eq(a[0].waiter.job, a[1].waiter.job);
	ck_assert_uint_eq(executed(), 2);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

/* One joins what runs, one is parked behind what a change has made old, two are sent. */
START_TEST(what_runs_elsewhere_is_joined_or_waited_for)
{
	struct asked young, old, a[4];
	struct asked *like[] = {&young, &old, &a[2], &a[3]};
	static char other_name[] = "other";
	int ret[4];
	struct engine_options o = options(4, 100);
	start(relay->url, 4, PATIENCE_MS, &o);
	close_gate();
	prepare(&old, PG_GATED, -1);
	old.endpoint.name = other_name;
	old.endpoint.cache.off = false;
	ck_assert_int_eq(submit_for(&old, &old), 0);
	WAIT_UNTIL(pg_running() == 1);
	tags_raise_endpoint(generations, other_name);
	ck_assert_int_eq(submit(&young, PG_GATED, -1), 0);
	WAIT_UNTIL(pg_running() == 2);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		prepare(&a[i], PG_ONE, -1);
	submit_batch_for(a, ELEMENTSOF(a), like, ret);
	ck_assert_int_eq(outcome_of(&a[2]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[3]), OUTCOME_OK);
	ck_assert_uint_eq(stats().waiting, 1);
	open_gate();
	ck_assert_int_eq(outcome_of(&a[0]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[1]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&young), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&old), OUTCOME_OK);
	ck_assert_ptr_eq(a[0].waiter.job, young.waiter.job);
	ck_assert_ptr_ne(a[1].waiter.job, old.waiter.job);
	ck_assert_uint_eq(executed(), 5);
	end_all(a, ELEMENTSOF(a));
	end(&young);
	end(&old);
}
END_TEST

START_TEST(a_member_parks_who_comes_after_a_change)
{
	static const char *const text[] = {PG_GATED, PG_ONE};
	struct asked a[ELEMENTSOF(text)], later;
	start_usual();
	close_gate();
	prepare_all(a, text, ELEMENTSOF(a), -1);
	a[1].endpoint.cache.off = false;
	submit_prepared(a, ELEMENTSOF(a));
	WAIT_UNTIL(pg_running() == 1);
	tags_raise_endpoint(generations, endpoint_name);
	prepare(&later, PG_ONE, -1);
	ck_assert_int_eq(submit_for(&later, &a[1]), 0);
	ck_assert_uint_eq(stats().waiting, 1);
	open_gate();
	ck_assert_int_eq(outcome_of(&later), OUTCOME_OK);
	ck_assert_ptr_ne(later.waiter.job, a[1].waiter.job);
	ck_assert(later.waiter.job->stored);
	ck_assert(!a[1].waiter.job->stored);
	end(&later);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

/* ---- leaving ------------------------------------------------------------------------- */

START_TEST(a_member_that_nobody_wants_is_dropped_while_it_waits)
{
	static const char *const text[] = {PG_ONE, PG_ONE, PG_ONE};
	struct engine_options o = options(1, 100);
	struct asked busy, a[2][ELEMENTSOF(text)];
	start(relay->url, 1, PATIENCE_MS, &o);
	close_gate();
	ck_assert_int_eq(submit(&busy, PG_GATED, -1), 0);
	WAIT_UNTIL(pg_running() == 1);
	BATCH(a[0], text);
	BATCH(a[1], text);
	ck_assert_uint_eq(stats().waiting, 6);
	engine_abandon(engine, a[0][1].waiter.ticket);
	ck_assert(a[0][1].waiter.left);
	for (size_t i = 0; i < ELEMENTSOF(text); i++)
		engine_abandon(engine, a[1][i].waiter.ticket);
	ck_assert_uint_eq(stats().waiting, 2);
	open_gate();
	ck_assert_int_eq(outcome_of(&a[0][0]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[0][2]), OUTCOME_OK);
	ck_assert_uint_eq(executed(), 3);
	end_all(a[0], ELEMENTSOF(text));
	end_all(a[1], ELEMENTSOF(text));
	end(&busy);
}
END_TEST

START_TEST(a_batch_that_runs_goes_on_for_any)
{
	static const char *const text[] = {PG_GATED, PG_ONE, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	close_gate();
	BATCH(a, text);
	WAIT_UNTIL(pg_running() == 1);
	engine_abandon(engine, a[0].waiter.ticket);
	engine_abandon(engine, a[1].waiter.ticket);
	ck_assert(a[0].waiter.left && a[1].waiter.left);
	open_gate();
	ck_assert_int_eq(outcome_of(&a[2]), OUTCOME_OK);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 0);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(a_batch_that_nobody_waits_for_is_cancelled)
{
	static const char *const text[] = {PG_ONE, PG_HANG, PG_ONE};
	struct asked a[ELEMENTSOF(text)], later;
	start_usual();
	BATCH(a, text);
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_int_eq(outcome_of(&a[0]), OUTCOME_OK);
	engine_abandon(engine, a[1].waiter.ticket);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 0);
	engine_abandon(engine, a[2].waiter.ticket);
	prepare(&later, PG_ONE, -1);
	ck_assert_int_eq(submit_for(&later, &a[2]), 0);
	WAIT_UNTIL(atomic_load(&relay->cancels) >= 1 && pg_running() == 0);
	ck_assert_int_eq(outcome_of(&later), OUTCOME_OK);
	ck_assert(a[1].waiter.left && a[2].waiter.left);
	end(&later);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

/* ---- other tries --------------------------------------------------------------------- */

START_TEST(each_has_its_own_timeout)
{
	static const char *const text[] = {PG_ONE, PG_HANG, HALF, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	prepare_all(a, text, ELEMENTSOF(a), -1);
	a[1].endpoint.timeout_ms = 100;
	uint64_t begun = clock_us();
	submit_prepared(a, ELEMENTSOF(a));
	ck_assert_int_eq(outcome_of(&a[1]), OUTCOME_DEADLINE);
	ck_assert_uint_ge(clock_us() - begun, 100000);
	ck_assert_int_eq(outcome_of(&a[0]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[2]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[3]), OUTCOME_OK);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(all_together_have_twice_the_largest)
{
	static struct asked a[20];
	start_usual();
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		prepare(&a[i], PG_HANG, 500);
	uint64_t begun = clock_us();
	submit_prepared(a, ELEMENTSOF(a));
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_DEADLINE);
	ck_assert_uint_ge(clock_us() - begun, 1000000);
	ck_assert_uint_lt(stats().statements, ELEMENTSOF(a) + 3);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(after_a_lost_connection_the_rest_is_run_by_itself)
{
	static const char *const text[] = {PG_ONE, PG_GATED, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	close_gate();
	BATCH(a, text);
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_int_eq(outcome_of(&a[0]), OUTCOME_OK);
	relay_cut(relay);
	open_gate();
	for (size_t i = 1; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_OK);
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().retries, 2);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(who_ends_the_connection_ends_alone)
{
	static const char *const text[] = {PG_ONE, PG_TERMINATED, PG_ONE, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	BATCH(a, text);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), i == 1 ? OUTCOME_DB_LOST : OUTCOME_OK);
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(a_conflict_is_tried_again)
{
	static const char *const text[] = {PG_ONE, CONFLICT, PG_ONE};
	struct asked a[ELEMENTSOF(text)];
	start_usual();
	BATCH(a, text);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(outcome_of(&a[i]), i == 1 ? OUTCOME_SQL_ERROR : OUTCOME_OK);
	ck_assert_str_eq(answer_of(&a[1])->sqlstate, "40001");
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().retries, 4); /* alone, as any other read */
	end_all(a, ELEMENTSOF(a));
}
END_TEST

START_TEST(a_forgotten_statement_is_run_again)
{
	static const char *const text[] = {PG_ONE, "SELECT * FROM test_batch.changing", PG_ONE};
	struct engine_options o = options(1, 100);
	struct asked a[ELEMENTSOF(text)];
	pg_ask("SET client_min_messages = error; DROP TABLE IF EXISTS test_batch.changing;"
	       "CREATE TABLE test_batch.changing AS SELECT '1'::json AS a;"
	       "GRANT SELECT ON test_batch.changing TO public");
	start(relay->url, 1, PATIENCE_MS, &o);
	for (unsigned turn = 0; turn < 2; turn++) {
		BATCH(a, text);
		for (size_t i = 0; i < ELEMENTSOF(a); i++)
			ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_OK);
		end_all(a, ELEMENTSOF(a));
		pg_ask("ALTER TABLE test_batch.changing ALTER a TYPE jsonb");
	}
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().retries, 1);
}
END_TEST

START_TEST(without_a_database_all_are_told_so)
{
	static const char *const text[] = {PG_ONE, PG_ONE, PG_ONE};
	struct engine_options o = options(1, 100);
	struct asked a[ELEMENTSOF(text)];
	relay_hold(relay, true);
	start(relay->url, 1, 50, &o);
	BATCH(a, text);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_POOL_TIMEOUT);
		ck_assert_uint_ge(answer_of(&a[i])->queue_us, 50000);
	}
	end_all(a, ELEMENTSOF(a));
}
END_TEST

/* ---- the queue ----------------------------------------------------------------------- */

START_TEST(members_count_in_the_queue)
{
	static const char *const text[] = {PG_ONE, PG_ONE, PG_ONE, PG_ONE};
	struct engine_options o = options(1, 3);
	struct asked busy, a[ELEMENTSOF(text)], more;
	int ret[ELEMENTSOF(text)];
	start(relay->url, 1, PATIENCE_MS, &o);
	close_gate();
	ck_assert_int_eq(submit(&busy, PG_GATED, -1), 0);
	WAIT_UNTIL(pg_running() == 1);
	prepare_all(a, text, ELEMENTSOF(a), -1);
	submit_batch_for(a, ELEMENTSOF(a), NULL, ret);
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(ret[i], i < 3 ? 0 : -EAGAIN);
	ck_assert_uint_eq(stats().waiting, 3);
	ck_assert_uint_eq(stats().refused, 1);
	ck_assert_int_eq(submit(&more, PG_ONE, -1), -EAGAIN);
	end(&more);
	engine_expire(engine, clock_us() + 60000000);
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(outcome_of(&a[i]), OUTCOME_QUEUE_TIMEOUT);
	ck_assert(!is_done(&a[3]));
	ck_assert_uint_eq(stats().expired, 3);
	ck_assert_uint_eq(stats().waiting, 0);
	open_gate();
	ck_assert_int_eq(outcome_of(&busy), OUTCOME_OK);
	ck_assert_uint_eq(executed(), 1);
	end_all(a, ELEMENTSOF(a));
	end(&busy);
}
END_TEST

START_TEST(a_stop_ends_what_waits_and_what_runs)
{
	static const char *const text[] = {PG_ONE, PG_HANG, PG_ONE};
	struct engine_options o = options(1, 100);
	struct asked a[2][ELEMENTSOF(text)], late[ELEMENTSOF(text)];
	int ret[ELEMENTSOF(text)];
	start(relay->url, 1, PATIENCE_MS, &o);
	BATCH(a[0], text);
	WAIT_UNTIL(pg_running() == 1);
	BATCH(a[1], text);
	engine_stop(engine, 0);
	ck_assert_int_eq(outcome_of(&a[0][0]), OUTCOME_OK);
	ck_assert_int_eq(outcome_of(&a[0][1]), OUTCOME_STOPPING);
	ck_assert_int_eq(outcome_of(&a[0][2]), OUTCOME_STOPPING);
	for (size_t i = 0; i < ELEMENTSOF(text); i++)
		ck_assert_int_eq(outcome_of(&a[1][i]), OUTCOME_STOPPING);
	prepare_all(late, text, ELEMENTSOF(late), -1);
	submit_batch_for(late, ELEMENTSOF(late), NULL, ret);
	for (size_t i = 0; i < ELEMENTSOF(late); i++)
		ck_assert_int_eq(ret[i], -ESHUTDOWN);
	end_all(late, ELEMENTSOF(late));
	end_all(a[0], ELEMENTSOF(text));
	end_all(a[1], ELEMENTSOF(text));
}
END_TEST

/* ---- threads ------------------------------------------------------------------------- */

enum { SUBMITTERS = 4, BATCHES = 40, MEMBERS = 6 };

static struct asked shared[MEMBERS];
static atomic_bool over;

/* Batches of keys that all share, of which some are left again; each waiter is done once. */
static void *submit_often(void *arg)
{
	struct asked *const like[] = {&shared[0], &shared[1], &shared[2],
	                              &shared[3], &shared[4], &shared[5]};
	unsigned *failed = arg;
	for (unsigned n = 0; n < BATCHES; n++) {
		struct asked a[MEMBERS];
		int ret[MEMBERS];
		for (size_t i = 0; i < MEMBERS; i++)
			prepare(&a[i], PG_ONE, -1);
		submit_batch_for(a, MEMBERS, like, ret);
		for (size_t i = 0; i < MEMBERS; i++)
			if (ret[i] == 0 && (n + i) % 3 == 0)
				engine_abandon(engine, a[i].waiter.ticket);
		for (size_t i = 0; i < MEMBERS; i++) {
			if (ret[i] == 0)
				WAIT_UNTIL(is_done(&a[i]));
			*failed += atomic_load(&a[i].done) != (ret[i] == 0);
			*failed += a[i].waiter.left ? a[i].waiter.job != NULL : false;
			end(&a[i]);
		}
	}
	return NULL;
}

static void *disturb(void *arg)
{
	(void)arg;
	while (!atomic_load(&over)) {
		tags_raise_endpoint(generations, endpoint_name);
		engine_expire(engine, clock_us() + 60000000 - 2000);
		sched_yield();
	}
	return NULL;
}

START_TEST(each_member_is_done_once_whoever_takes_it)
{
	pthread_t thread[SUBMITTERS], other;
	unsigned failed[SUBMITTERS] = {0};
	struct engine_options o = options(3, 15);
	for (size_t i = 0; i < MEMBERS; i++) {
		prepare(&shared[i], PG_ONE, -1);
		shared[i].endpoint.cache.off = i % 2;
	}
	start(relay->url, 3, PATIENCE_MS, &o);
	atomic_store(&over, false);
	ck_assert_int_eq(pthread_create(&other, NULL, disturb, NULL), 0);
	for (size_t i = 0; i < SUBMITTERS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, submit_often, &failed[i]), 0);
	for (size_t i = 0; i < SUBMITTERS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&over, true);
	pthread_join(other, NULL);
	for (size_t i = 0; i < SUBMITTERS; i++)
		ck_assert_uint_eq(failed[i], 0);
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().waiting, 0);
	end_all(shared, MEMBERS);
}
END_TEST

/* ---- the program --------------------------------------------------------------------- */

static void create_objects(void)
{
	pg_open();
	pg_ask("SET client_min_messages = error;"
	       "DROP SCHEMA IF EXISTS test_batch CASCADE;"
	       "CREATE SCHEMA test_batch;"
	       "GRANT USAGE ON SCHEMA test_batch TO public;"
	       "CREATE TABLE test_batch.refused (a json);"
	       "CREATE FUNCTION test_batch.conflict() RETURNS json LANGUAGE plpgsql AS "
	       "$$BEGIN RAISE SQLSTATE '40001'; END$$");
	pg_close();
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("batch");
	TCase *c = tcase_create("batch");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, statements_are_one_round_trip);
	tcase_add_test(c, each_is_answered_when_its_result_is_there);
	tcase_add_test(c, a_failure_does_not_spoil_the_others);
	tcase_add_test(c, as_many_as_may_be);
	tcase_add_test(c, none_and_one_are_no_batch);
	tcase_add_test(c, answers_are_stored_and_found);
	tcase_add_test(c, members_are_shared_while_they_wait_and_while_they_run);
	tcase_add_test(c, a_running_member_is_shared);
	tcase_add_test(c, equal_members_are_one);
	tcase_add_test(c, what_runs_elsewhere_is_joined_or_waited_for);
	tcase_add_test(c, a_member_parks_who_comes_after_a_change);
	tcase_add_test(c, a_member_that_nobody_wants_is_dropped_while_it_waits);
	tcase_add_test(c, a_batch_that_runs_goes_on_for_any);
	tcase_add_test(c, a_batch_that_nobody_waits_for_is_cancelled);
	tcase_add_test(c, each_has_its_own_timeout);
	tcase_add_test(c, all_together_have_twice_the_largest);
	tcase_add_test(c, after_a_lost_connection_the_rest_is_run_by_itself);
	tcase_add_test(c, who_ends_the_connection_ends_alone);
	tcase_add_test(c, a_conflict_is_tried_again);
	tcase_add_test(c, a_forgotten_statement_is_run_again);
	tcase_add_test(c, without_a_database_all_are_told_so);
	tcase_add_test(c, members_count_in_the_queue);
	tcase_add_test(c, a_stop_ends_what_waits_and_what_runs);
	tcase_add_test(c, each_member_is_done_once_whoever_takes_it);
	suite_add_tcase(s, c);
	conn_global_init();
	return pg_run_suite(s);
}
