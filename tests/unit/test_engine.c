#include "engine_fixture.h"

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
	ck_assert_uint_eq(answer_of(&a)->body_len, 1);
	ck_assert_int_eq(*answer_of(&a)->body, '1');
	static const unsigned char zero[16];
	ck_assert_mem_ne(answer_of(&a)->etag, zero, sizeof zero);
	end(&a);
	ck_assert_int_eq(ask(&a, PG_NONE, -1), OUTCOME_NO_ROW);
	end(&a);
	ck_assert_int_eq(ask(&a, REFUSED, -1), OUTCOME_SQL_ERROR);
	ck_assert_str_eq(answer_of(&a)->sqlstate, "42501");
	ck_assert_str_eq(answer_of(&a)->message, "permission denied for table refused");
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
	ck_assert_str_eq(answer_of(&a)->sqlstate, "40001");
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
	ck_assert_int_eq(answer_of(&a)->outcome, OUTCOME_DB_LOST);
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
		ck_assert_uint_ge(answer_of(&a)->db_us, 200000);
		end(&a);
		WAIT_UNTIL(atomic_load(&relay->cancels) >= i && pg_running() == 0);
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
	start(url, 4, PATIENCE_MS, &o);
	uint64_t begun = clock_us();
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(submit(&a[i], PG_ONE, -1), 0);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		WAIT_UNTIL(is_done(&a[i]));
		ck_assert_int_eq(answer_of(&a[i])->outcome, OUTCOME_DB_DOWN);
		end(&a[i]);
	}
	ck_assert_uint_lt(clock_us() - begun, 30000000); /* they would wait for a minute */
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
		ck_assert_int_eq(answer_of(&a[i])->outcome, OUTCOME_POOL_TIMEOUT);
		ck_assert_uint_ge(answer_of(&a[i])->queue_us, 50000);
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
	start(relay->url, 1, PATIENCE_MS, &o);
	keep_waiting(&busy, waiting, 2);
	ck_assert_int_eq(submit(&more, PG_ONE, -1), -EAGAIN);
	ck_assert(!is_done(&more));
	end(&more);
	ck_assert_uint_eq(stats().refused, 1);
	o.queue = 3;
	ck_assert_int_eq(engine_configure(engine, &o), 0);
	ck_assert_int_eq(submit(&more, PG_ONE, -1), 0);

	engine_stop(engine, 0);
	ck_assert_int_eq(answer_of(&busy)->outcome, OUTCOME_STOPPING);
	ck_assert_int_eq(answer_of(&more)->outcome, OUTCOME_STOPPING);
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
	start(relay->url, 1, PATIENCE_MS, &o);
	keep_waiting(&busy, waiting, 3);
	uint64_t newest = clock_us();

	engine_expire(engine, newest);
	ck_assert_uint_eq(stats().expired, 0);
	engine_expire(engine, newest + 60000000);
	ck_assert_uint_eq(stats().expired, 3);
	ck_assert_uint_eq(stats().waiting, 0);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++) {
		ck_assert_uint_eq(atomic_load(&waiting[i].done), 1);
		ck_assert_int_eq(answer_of(&waiting[i])->outcome, OUTCOME_QUEUE_TIMEOUT);
		end(&waiting[i]);
	}
	ck_assert(!is_done(&busy));
	engine_stop(engine, 0);
	end(&busy);
}
END_TEST

/* ---- sharing ------------------------------------------------------------------------- */

/* Begins a gated fill for `first` and waits until its statement runs. */
static void begin_gated(struct asked *first, bool cached)
{
	close_gate();
	prepare(first, PG_GATED, -1);
	first->endpoint.cache.off = !cached;
	ck_assert_int_eq(submit_for(first, first), 0);
	WAIT_UNTIL(pg_running() == 1);
}

static void submit_like(struct asked *a, struct asked *first)
{
	prepare(a, PG_ONE, -1);
	ck_assert_int_eq(submit_for(a, first), 0);
}

static unsigned executed(void)
{
	return atomic_load(&relay->executed);
}

START_TEST(requests_for_one_key_share_one_statement)
{
	struct asked first, more[100];
	start_usual();
	begin_gated(&first, false);
	for (size_t i = 0; i < ELEMENTSOF(more); i++)
		submit_like(&more[i], &first);
	ck_assert_uint_eq(stats().waiting, 0);
	open_gate();
	for (size_t i = 0; i < ELEMENTSOF(more); i++) {
		WAIT_UNTIL(is_done(&more[i]));
		ck_assert_ptr_eq(more[i].waiter.job, first.waiter.job);
		ck_assert(more[i].waiter.collapsed);
	}
	ck_assert(!first.waiter.collapsed);
	ck_assert_int_eq(answer_of(&first)->outcome, OUTCOME_OK);
	ck_assert_uint_eq(executed(), 1);
	ck_assert_uint_eq(stats().jobs, 1);
	ck_assert_uint_eq(stats().collapsed, ELEMENTSOF(more));
	for (size_t i = 0; i < ELEMENTSOF(more); i++) {
		ck_assert_uint_eq(atomic_load(&more[i].done), 1);
		end(&more[i]);
	}
	end(&first);
}
END_TEST

START_TEST(an_opaque_endpoint_shares_nothing)
{
	struct asked first, second;
	start_usual();
	close_gate();
	prepare(&first, PG_GATED, -1);
	first.endpoint.opaque = endpoint_name;
	ck_assert_int_eq(submit_for(&first, &first), 0);
	submit_like(&second, &first);
	WAIT_UNTIL(pg_running() == 2);
	open_gate();
	WAIT_UNTIL(is_done(&first) && is_done(&second));
	ck_assert_uint_eq(stats().collapsed, 0);
	end(&second);
	end(&first);
}
END_TEST

START_TEST(who_comes_after_a_change_is_not_given_what_was_begun_before_it)
{
	struct asked first, later[3];
	start_usual();
	begin_gated(&first, true);
	tags_raise_endpoint(generations, endpoint_name);
	for (size_t i = 0; i < ELEMENTSOF(later); i++)
		submit_like(&later[i], &first);
	ck_assert_uint_eq(stats().waiting, 1);
	ck_assert_uint_eq(stats().busy, 1);
	open_gate();
	WAIT_UNTIL(is_done(&first));
	for (size_t i = 0; i < ELEMENTSOF(later); i++) {
		WAIT_UNTIL(is_done(&later[i]));
		ck_assert_ptr_ne(later[i].waiter.job, first.waiter.job);
		ck_assert_ptr_eq(later[i].waiter.job, later[0].waiter.job);
		ck_assert_int_eq(answer_of(&later[i])->outcome, OUTCOME_OK);
	}
	ck_assert_uint_eq(executed(), 2);
	ck_assert(!first.waiter.job->stored);
	ck_assert(later[0].waiter.job->stored);
	for (size_t i = 0; i < ELEMENTSOF(later); i++)
		end(&later[i]);
	end(&first);
}
END_TEST

START_TEST(who_waits_behind_a_fill_has_the_queues_deadline)
{
	struct asked first, later;
	start_usual();
	begin_gated(&first, true);
	tags_raise_endpoint(generations, endpoint_name);
	submit_like(&later, &first);
	engine_expire(engine, clock_us() + 60000000);
	ck_assert(is_done(&later));
	ck_assert_int_eq(answer_of(&later)->outcome, OUTCOME_QUEUE_TIMEOUT);
	ck_assert(!is_done(&first));
	end(&later);
	open_gate();
	WAIT_UNTIL(is_done(&first));
	ck_assert_uint_eq(executed(), 1);
	end(&first);
}
END_TEST

START_TEST(max_stale_lets_later_requests_join)
{
	struct asked first, later;
	start_usual();
	close_gate();
	prepare(&first, PG_GATED, -1);
	first.endpoint.cache.off = false;
	first.endpoint.freshness.max_stale_ms = 60000;
	ck_assert_int_eq(submit_for(&first, &first), 0);
	WAIT_UNTIL(pg_running() == 1);
	tags_raise_endpoint(generations, endpoint_name);
	submit_like(&later, &first);
	open_gate();
	WAIT_UNTIL(is_done(&first) && is_done(&later));
	ck_assert(later.waiter.stale && !first.waiter.stale);
	ck_assert_ptr_eq(first.waiter.job, later.waiter.job);
	ck_assert(first.waiter.job->stored);
	end(&later);
	end(&first);
}
END_TEST

/* In the order in which they came: a key that is changed and asked for all the time does not starve
 * the others, nor do they starve it. */
START_TEST(what_waited_behind_a_fill_takes_its_turn)
{
	struct engine_options o = options(1, 10);
	struct asked first, before, behind, after;
	start(relay->url, 1, PATIENCE_MS, &o);
	begin_gated(&first, true);
	ck_assert_int_eq(submit(&before, PG_HANG, 300), 0);
	tags_raise_endpoint(generations, endpoint_name);
	submit_like(&behind, &first);
	ck_assert_int_eq(submit(&after, PG_HANG, 300), 0);
	open_gate();
	WAIT_UNTIL(is_done(&before) && is_done(&behind) && is_done(&after));
	ck_assert_uint_lt(before.turn, behind.turn);
	ck_assert_uint_lt(behind.turn, after.turn);
	end(&after);
	end(&behind);
	end(&before);
	end(&first);
}
END_TEST

/* ---- leaving ------------------------------------------------------------------------- */

START_TEST(a_fill_goes_on_for_those_who_stay)
{
	struct asked first, second;
	start_usual();
	begin_gated(&first, false);
	submit_like(&second, &first);
	engine_abandon(engine, first.waiter.ticket);
	ck_assert(is_done(&first));
	ck_assert(first.waiter.left);
	ck_assert_ptr_null(first.waiter.job);
	ck_assert(!is_done(&second));
	open_gate();
	WAIT_UNTIL(is_done(&second));
	ck_assert_int_eq(answer_of(&second)->outcome, OUTCOME_OK);
	ck_assert_uint_eq(atomic_load(&relay->cancels), 0);
	end(&second);
	end(&first);
}
END_TEST

START_TEST(a_fill_that_nobody_waits_for_is_cancelled_and_not_joined)
{
	struct asked first, second;
	start_usual();
	begin_gated(&first, false);
	engine_abandon(engine, first.waiter.ticket);
	ck_assert(is_done(&first));
	submit_like(&second, &first);
	WAIT_UNTIL(atomic_load(&relay->cancels) >= 1);
	open_gate();
	WAIT_UNTIL(is_done(&second));
	ck_assert_int_eq(answer_of(&second)->outcome, OUTCOME_OK);
	ck_assert_uint_eq(executed(), 2);
	end(&second);
	end(&first);
}
END_TEST

START_TEST(a_waiting_job_that_nobody_wants_is_dropped)
{
	struct engine_options o = options(1, 10);
	struct asked busy, waiting[2], parked;
	start(relay->url, 1, PATIENCE_MS, &o);
	keep_waiting(&busy, waiting, 2);
	tags_raise_endpoint(generations, endpoint_name);
	submit_like(&parked, &busy);
	ck_assert_uint_eq(stats().waiting, 3);
	engine_abandon(engine, waiting[0].waiter.ticket);
	engine_abandon(engine, parked.waiter.ticket);
	ck_assert(waiting[0].waiter.left && parked.waiter.left);
	ck_assert_uint_eq(stats().waiting, 1);
	engine_abandon(engine, 0); /* nobody's */
	engine_stop(engine, 0);
	end(&parked);
	end(&busy);
	end(&waiting[0]);
	end(&waiting[1]);
}
END_TEST

/* ---- storing ------------------------------------------------------------------------- */

static enum cache_state look_up(struct asked *a, int64_t later_ms)
{
	struct cache_found found;
	cache_get(cache, cache_key(cache, a->key.data, a->key.len), &a->endpoint.freshness,
	          clock_ms() + (uint64_t)later_ms, &found);
	entry_unref(&found.entry);
	return found.state;
}

static enum outcome ask_cached(struct asked *a, const char *text)
{
	prepare(a, text, -1);
	a->endpoint.cache.off = false;
	ck_assert_int_eq(submit_for(a, a), 0);
	WAIT_UNTIL(is_done(a));
	return answer_of(a)->outcome;
}

START_TEST(answers_and_absences_are_stored_and_failures_are_not)
{
	struct asked a;
	start_usual();
	ck_assert_int_eq(ask_cached(&a, PG_ONE), OUTCOME_OK);
	ck_assert(a.waiter.job->stored);
	ck_assert_int_eq(look_up(&a, 0), CACHE_FRESH);
	tags_raise_endpoint(generations, endpoint_name);
	ck_assert_int_eq(look_up(&a, 0), CACHE_MISS);
	end(&a);
	ck_assert_int_eq(ask_cached(&a, PG_NONE), OUTCOME_NO_ROW);
	ck_assert_int_eq(look_up(&a, 0), CACHE_FRESH);
	ck_assert_int_eq(look_up(&a, 6000), CACHE_MISS);
	end(&a);
	ck_assert_int_eq(ask_cached(&a, REFUSED), OUTCOME_SQL_ERROR);
	ck_assert_int_eq(look_up(&a, 0), CACHE_MISS);
	end(&a);
	ck_assert_int_eq(ask(&a, PG_ONE, -1), OUTCOME_OK); /* cache off */
	ck_assert_int_eq(look_up(&a, 0), CACHE_MISS);
	end(&a);
}
END_TEST

START_TEST(what_was_stored_meanwhile_is_not_asked_for_again)
{
	struct asked first, second;
	start_usual();
	ck_assert_int_eq(ask_cached(&first, PG_ONE), OUTCOME_OK);
	submit_like(&second, &first);
	WAIT_UNTIL(is_done(&second));
	ck_assert_int_eq(answer_of(&second)->outcome, OUTCOME_OK);
	ck_assert_uint_eq(answer_of(&second)->body_len, 1);
	ck_assert_int_eq(*answer_of(&second)->body, '1');
	ck_assert_uint_eq(executed(), 1);
	/* What it is as fresh as is known. */
	ck_assert_uint_eq(entry_start(second.waiter.job->entry),
	                  atomic_load(&first.waiter.job->start));
	/* It had a start of its own, by which who would join after a change is told. */
	ck_assert(atomic_load(&second.waiter.job->start) != JOB_NOT_SENT);
	end(&second);
	end(&first);
}
END_TEST

/* ---- the background ------------------------------------------------------------------ */

static void refresh(struct asked *a)
{
	const struct ask w = what(a);
	engine_refresh(engine, &w);
}

START_TEST(a_refresh_runs_once_and_can_be_joined)
{
	struct asked a, b;
	start_usual();
	close_gate();
	prepare(&a, PG_GATED, -1);
	a.endpoint.cache.off = false;
	refresh(&a);
	WAIT_UNTIL(pg_running() == 1);
	refresh(&a);
	ck_assert_uint_eq(stats().refreshes, 1);
	submit_like(&b, &a);
	engine_abandon(engine, b.waiter.ticket); /* it goes on all the same */
	ck_assert(b.waiter.left);
	open_gate();
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_int_eq(look_up(&a, 0), CACHE_FRESH);
	ck_assert_uint_eq(executed(), 1);
	end(&b);
	end(&a);
}
END_TEST

START_TEST(the_background_has_a_quota)
{
	struct engine_options o = options(2, 100);
	struct asked a[2], b;
	start(relay->url, 4, PATIENCE_MS, &o);
	close_gate();
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		prepare(&a[i], PG_GATED, -1);
		refresh(&a[i]);
	}
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_uint_eq(stats().refreshes, 2);
	ck_assert_int_eq(ask(&b, PG_ONE, -1), OUTCOME_OK); /* the other worker is for requests */
	ck_assert_uint_eq(stats().busy, 1);
	end(&b);
	/* Somebody waits for it: it need not wait for the quota any more. */
	submit_like(&b, &a[1]);
	WAIT_UNTIL(pg_running() == 2);
	open_gate();
	WAIT_UNTIL(is_done(&b));
	end(&b);
	WAIT_UNTIL(stats().busy == 0);
	end(&a[0]);
	end(&a[1]);
}
END_TEST

START_TEST(the_background_lane_is_bounded)
{
	enum { MORE = ENGINE_BACKGROUND_MAX + 20 };
	static struct asked a[MORE];
	struct engine_options o = options(2, 100);
	start(relay->url, 4, PATIENCE_MS, &o);
	close_gate();
	for (size_t i = 0; i < MORE; i++) {
		prepare(&a[i], PG_GATED, -1);
		refresh(&a[i]);
		if (i == 0)
			WAIT_UNTIL(pg_running() == 1);
	}
	ck_assert_uint_eq(stats().refreshes, ENGINE_BACKGROUND_MAX + 1);
	engine_stop(engine, 0);
	open_gate();
	for (size_t i = 0; i < MORE; i++)
		end(&a[i]);
}
END_TEST

/* By age, within the quota: neither lane waits for the other to be empty. */
START_TEST(the_background_takes_its_turn)
{
	struct engine_options o = options(1, 10);
	struct asked first, before, late, after;
	start(relay->url, 1, PATIENCE_MS, &o);
	begin_gated(&first, false);
	ck_assert_int_eq(submit(&before, PG_HANG, 200), 0);
	prepare(&late, PG_ONE, -1);
	late.endpoint.cache.off = false;
	refresh(&late);
	ck_assert_int_eq(submit(&after, PG_HANG, -1), 0);
	open_gate();
	WAIT_UNTIL(look_up(&late, 0) == CACHE_FRESH);
	ck_assert(is_done(&before) && !is_done(&after));
	engine_abandon(engine, after.waiter.ticket);
	ck_assert(is_done(&after));
	WAIT_UNTIL(stats().busy == 0); /* with its endpoint */
	end(&after);
	end(&late);
	end(&before);
	end(&first);
}
END_TEST

static struct entry *stored(struct asked *a)
{
	struct cache_found found;
	cache_get(cache, cache_key(cache, a->key.data, a->key.len), &a->endpoint.freshness,
	          clock_ms(), &found);
	ck_assert_ptr_nonnull(found.entry);
	return found.entry;
}

#define LONG_TEXT "SELECT to_json(repeat('provost ', 1000))"

/* What never runs gives its claim back: the next request has the variant made after all. */
START_TEST(an_encoding_that_did_not_run_can_be_asked_for_again)
{
	struct engine_options o = options(1, 10);
	struct asked a, busy;
	size_t len;
	start(relay->url, 1, PATIENCE_MS, &o);
	ck_assert_int_eq(ask_cached(&a, LONG_TEXT), OUTCOME_OK);
	struct entry *entry = stored(&a);
	begin_gated(&busy, false);
	engine_encode(engine, entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 1);
	uint64_t expired = stats().expired;
	engine_expire(engine, clock_us() + 60000000);
	ck_assert_uint_eq(stats().expired, expired); /* nobody waited for it */
	engine_encode(engine, entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 2);
	open_gate();
	WAIT_UNTIL(entry_variant(entry, CODING_GZIP, &len));
	entry_unref(&entry);
	WAIT_UNTIL(is_done(&busy));
	end(&busy);
	end(&a);
}
END_TEST

START_TEST(an_encoding_that_found_no_room_can_be_asked_for_again)
{
	enum { MORE = ENGINE_BACKGROUND_MAX + 1 };
	static struct asked a[MORE];
	struct engine_options o = options(1, 10);
	struct asked text;
	size_t len;
	start(relay->url, 1, PATIENCE_MS, &o);
	ck_assert_int_eq(ask_cached(&text, LONG_TEXT), OUTCOME_OK);
	struct entry *entry = stored(&text);
	close_gate();
	for (size_t i = 0; i < MORE; i++) {
		prepare(&a[i], PG_GATED, -1);
		refresh(&a[i]);
		if (i == 0)
			WAIT_UNTIL(pg_running() == 1);
	}
	engine_encode(engine, entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 0);
	engine_expire(engine, clock_us() + 60000000);
	engine_encode(engine, entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 1);
	open_gate();
	WAIT_UNTIL(entry_variant(entry, CODING_GZIP, &len));
	entry_unref(&entry);
	WAIT_UNTIL(stats().busy == 0);
	for (size_t i = 0; i < MORE; i++)
		end(&a[i]);
	end(&text);
}
END_TEST

START_TEST(a_body_is_encoded_once)
{
	struct asked a;
	size_t len;
	start_usual();
	ck_assert_int_eq(ask_cached(&a, LONG_TEXT), OUTCOME_OK);
	struct cache_found found;
	cache_get(cache, cache_key(cache, a.key.data, a.key.len), &a.endpoint.freshness, clock_ms(),
	          &found);
	ck_assert_ptr_nonnull(found.entry);
	engine_encode(engine, found.entry, CODING_GZIP);
	engine_encode(engine, found.entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 1);
	WAIT_UNTIL(entry_variant(found.entry, CODING_GZIP, &len));
	ck_assert_uint_lt(len, 1000);
	ck_assert_ptr_null(entry_variant(found.entry, CODING_BR, &len));
	engine_encode(engine, found.entry, CODING_GZIP);
	ck_assert_uint_eq(stats().encodings, 1);
	entry_unref(&found.entry);
	end(&a);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------- */

/* What waits is answered first: by then the engine is stopping. */
static void *open_gate_when_told(void *arg)
{
	WAIT_UNTIL(is_done(arg));
	open_gate();
	return NULL;
}

START_TEST(stop_answers_what_waits_and_lets_finish_what_runs)
{
	struct engine_options o = options(1, 10);
	struct asked busy, waiting[3], late;
	pthread_t opener;
	start(relay->url, 1, PATIENCE_MS, &o);
	begin_gated(&busy, false);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++)
		ck_assert_int_eq(submit(&waiting[i], PG_ONE, -1), 0);

	ck_assert_int_eq(pthread_create(&opener, NULL, open_gate_when_told, &waiting[0]), 0);
	engine_stop(engine, clock_us() + 60000000);
	pthread_join(opener, NULL);
	ck_assert_uint_eq(atomic_load(&busy.done), 1);
	ck_assert_int_eq(answer_of(&busy)->outcome, OUTCOME_OK);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++) {
		ck_assert_uint_eq(atomic_load(&waiting[i].done), 1);
		ck_assert_int_eq(answer_of(&waiting[i])->outcome, OUTCOME_STOPPING);
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
	start(relay->url, 2, PATIENCE_MS, &o); /* two run, two wait for a connection */
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		ck_assert_int_eq(submit(&a[i], PG_HANG, -1), 0);
	WAIT_UNTIL(stats().busy == 4 && pg_running() == 2);
	uint64_t begun = clock_us();
	engine_stop(engine, begun + 100000);
	ck_assert_uint_ge(clock_us() - begun, 100000);
	ck_assert_uint_lt(clock_us() - begun, 30000000); /* as long as the statements would take */
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_uint_eq(atomic_load(&a[i].done), 1);
		ck_assert_int_eq(answer_of(&a[i])->outcome, OUTCOME_STOPPING);
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
			enum outcome o = answer_of(&a)->outcome;
			ck_assert(o == OUTCOME_OK || o == OUTCOME_NO_ROW ||
			          o == OUTCOME_QUEUE_TIMEOUT || o == OUTCOME_STOPPING);
			ck_assert_uint_eq(atomic_load(&a.done), 1);
			++*accepted;
		}
		end(&a);
		/* The worker may have the job, and so the catalogue, for a moment longer. */
		WAIT_UNTIL(atomic_load(&a.catalog.object.refs) == 1);
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
	start(relay->url, 3, PATIENCE_MS, &o);
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
	start(relay->url, 2, PATIENCE_MS, &o);
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
	tcase_add_test(c, requests_for_one_key_share_one_statement);
	tcase_add_test(c, an_opaque_endpoint_shares_nothing);
	tcase_add_test(c, who_comes_after_a_change_is_not_given_what_was_begun_before_it);
	tcase_add_test(c, who_waits_behind_a_fill_has_the_queues_deadline);
	tcase_add_test(c, max_stale_lets_later_requests_join);
	tcase_add_test(c, what_waited_behind_a_fill_takes_its_turn);
	tcase_add_test(c, a_fill_goes_on_for_those_who_stay);
	tcase_add_test(c, a_fill_that_nobody_waits_for_is_cancelled_and_not_joined);
	tcase_add_test(c, a_waiting_job_that_nobody_wants_is_dropped);
	tcase_add_test(c, answers_and_absences_are_stored_and_failures_are_not);
	tcase_add_test(c, what_was_stored_meanwhile_is_not_asked_for_again);
	tcase_add_test(c, a_refresh_runs_once_and_can_be_joined);
	tcase_add_test(c, the_background_has_a_quota);
	tcase_add_test(c, the_background_lane_is_bounded);
	tcase_add_test(c, the_background_takes_its_turn);
	tcase_add_test(c, an_encoding_that_did_not_run_can_be_asked_for_again);
	tcase_add_test(c, an_encoding_that_found_no_room_can_be_asked_for_again);
	tcase_add_test(c, a_body_is_encoded_once);
	tcase_add_test(c, stop_answers_what_waits_and_lets_finish_what_runs);
	tcase_add_test(c, stop_waits_no_longer_than_told);
	tcase_add_test(c, is_configured_while_threads_submit);
	tcase_add_test(c, each_job_is_done_once_whoever_takes_it);
	suite_add_tcase(s, c);
	conn_global_init();
	return pg_run_suite(s);
}
