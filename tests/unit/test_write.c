#include "engine_fixture.h"

/* ---- helpers ------------------------------------------------------------------------- */

static struct catalog no_endpoints = {.object.free = nothing_to_free};
static struct snapshot *snapshot;

/* Directly, not by the relay: what is cut and held there is the writers'. */
static void start_listener(void)
{
	const struct listener_sink nobody = {0};
	struct listener_options o = {.url = getenv("PROVOST_TEST_APP_DSN"),
	                             .heartbeat_ms = 5000,
	                             .sync_timeout_ms = PATIENCE_MS};
	struct listener_stats s;
	snapshot = snapshot_new();
	snapshot_set(snapshot, &no_endpoints.object);
	listener = listener_new(&o, generations, snapshot, &nobody);
	ck_assert_int_eq(listener_start(listener), 0);
	WAIT_UNTIL((listener_stats(listener, &s), s.state == LISTENER_LIVE));
}

/* What is not known takes sync_timeout to be so. */
static void wait_for_tokens(int64_t sync_timeout_ms)
{
	const struct listener_options o = {.heartbeat_ms = 5000,
	                                   .sync_timeout_ms = sync_timeout_ms};
	if (listener)
		listener_configure(listener, &o);
}

/* With one connection, which is there. */
static void start_writer(void)
{
	struct engine_options o = options(2, 100);
	struct pool_stats s;
	struct pool_options p = {.url = relay->url,
	                         .min = 1,
	                         .max = 2,
	                         .acquire_timeout_ms = PATIENCE_MS,
	                         .prepare = true};
	pool = pool_new(&p);
	ck_assert_int_eq(pool_start(pool), 0);
	engine = engine_new(&o, pool, cache, generations, listener);
	ck_assert_int_eq(engine_start(engine), 0);
	WAIT_UNTIL((pool_stats(pool, &s), s.idle == 1));
}

static void setup_writer(void)
{
	setup();
	pg_ask("TRUNCATE test_write.item, test_write.late, test_write.fatal CASCADE;"
	       "ALTER SEQUENCE test_write.tries RESTART");
}

static void setup_listened(void)
{
	setup_writer();
	start_listener();
	start_writer();
}

static void setup_alone(void)
{
	setup_writer();
	start_writer();
}

static void teardown_writer(void)
{
	teardown();
	if (snapshot)
		snapshot_free(&snapshot);
}

static int submit_write(struct asked *a)
{
	const struct ask w = what(a);
	return engine_write(engine, &w, &a->waiter);
}

static void begin_write(struct asked *a, const char *text, enum returns returns, int64_t timeout_ms)
{
	prepare(a, text, timeout_ms);
	a->endpoint.method = METHOD_POST;
	a->endpoint.returns = returns;
	ck_assert_int_eq(submit_write(a), 0);
}

static enum outcome finish_write(struct asked *a)
{
	WAIT_UNTIL(is_done(a));
	ck_assert_uint_eq(atomic_load(&a->done), 1);
	return answer_of(a)->outcome;
}

static enum outcome write_as(struct asked *a, const char *text, enum returns returns,
                             int64_t timeout_ms)
{
	begin_write(a, text, returns, timeout_ms);
	return finish_write(a);
}

static enum outcome write_json(struct asked *a, const char *text)
{
	return write_as(a, text, RETURNS_JSON, -1);
}

/* Writes, and looks only at how it ended. */
static enum outcome outcome_of(const char *text)
{
	struct asked a;
	enum outcome o = write_json(&a, text);
	end(&a);
	return o;
}

static unsigned items(void)
{
	return pg_ask("SELECT count(*) FROM test_write.item");
}

static bool epoch_was_raised_since(uint64_t start)
{
	return !generations_fresh(generations, NULL, 0, start, clock_ms());
}

#define INSERT(id)  "INSERT INTO test_write.item VALUES (" #id ") RETURNING to_json(id)"
#define SLOW_INSERT "INSERT INTO test_write.item SELECT 1 FROM pg_sleep(600) RETURNING to_json(id)"

/* ---- commits ------------------------------------------------------------------------- */

START_TEST(a_write_commits_and_is_heard_of)
{
	struct asked a;
	struct listener_stats s;
	uint64_t raises = generations_raises(generations), now = generations_now(generations);
	ck_assert_int_eq(write_json(&a, INSERT(7)), OUTCOME_OK);
	/* Its trigger's change, which was sent before the token. */
	ck_assert_uint_gt(generations_raises(generations), raises);
	ck_assert(!epoch_was_raised_since(now));
	ck_assert_uint_eq(answer_of(&a)->body_len, 1);
	ck_assert_int_eq(*answer_of(&a)->body, '7');
	ck_assert_uint_gt(answer_of(&a)->db_us, 0);
	ck_assert_uint_eq(items(), 1);
	listener_stats(listener, &s);
	ck_assert_uint_eq(s.syncs, 1);
	ck_assert_uint_eq(s.late_syncs, 0);
	ck_assert_uint_eq(stats().writes, 1);
	ck_assert_uint_eq(stats().statements, 1);
	ck_assert_uint_eq(stats().retries, 0);
	end(&a);
}
END_TEST

START_TEST(without_a_listener_everything_is_old_after_it)
{
	struct asked a;
	uint64_t now = generations_now(generations);
	ck_assert_int_eq(write_json(&a, INSERT(7)), OUTCOME_OK);
	ck_assert(epoch_was_raised_since(now));
	end(&a);
	now = generations_now(generations);
	ck_assert_int_eq(outcome_of(INSERT(7)), OUTCOME_SQL_ERROR);
	ck_assert(!epoch_was_raised_since(now)); /* nothing was changed */
}
END_TEST

/* The token has found nobody: its place in the stream is not known. */
START_TEST(a_token_that_does_not_come_makes_everything_old)
{
	uint64_t now = generations_now(generations);
	wait_for_tokens(300);
	pg_ask("BEGIN; LOCK TABLE test_write.item IN EXCLUSIVE MODE");
	struct asked a;
	begin_write(&a, INSERT(1), RETURNS_JSON, -1);
	/* The listener goes away between the token's registration and its arrival. */
	WAIT_UNTIL(pg_sessions("count(*) FILTER (WHERE wait_event_type = 'Lock')") == 1);
	listener_stop(listener);
	pg_ask("COMMIT");
	ck_assert_int_eq(finish_write(&a), OUTCOME_OK);
	ck_assert(epoch_was_raised_since(now));
	ck_assert_uint_eq(items(), 1);
	end(&a);
}
END_TEST

START_TEST(a_write_without_a_row_commits)
{
	struct asked a;
	static const enum returns returns[] = {RETURNS_JSON, RETURNS_ROW, RETURNS_ROWS,
	                                       RETURNS_NONE};
	static const enum outcome outcome[] = {OUTCOME_NO_ROW, OUTCOME_NO_ROW, OUTCOME_OK,
	                                       OUTCOME_OK};
	for (unsigned i = 0; i < ELEMENTSOF(returns); i++) {
		_cleanup_free_ char *text =
		    xasprintf("WITH x AS (INSERT INTO test_write.item VALUES (%u) RETURNING id)"
		              " SELECT to_json(id) FROM x WHERE false",
		              i);
		ck_assert_int_eq(write_as(&a, text, returns[i], -1), outcome[i]);
		ck_assert_uint_eq(answer_of(&a)->body_len, returns[i] == RETURNS_ROWS ? 2 : 0);
		end(&a);
		ck_assert_uint_eq(items(), i + 1);
	}
}
END_TEST

START_TEST(rows_are_rendered_as_of_reads)
{
	struct asked a;
	static const char text[] =
	    "INSERT INTO test_write.item SELECT generate_series(1, 3) RETURNING id";
	static const char body[] = "[{\"id\":1},{\"id\":2},{\"id\":3}]";
	ck_assert_int_eq(write_as(&a, text, RETURNS_ROWS, -1), OUTCOME_OK);
	ck_assert_uint_eq(answer_of(&a)->body_len, strlen(body));
	ck_assert_mem_eq(answer_of(&a)->body, body, strlen(body));
	end(&a);
}
END_TEST

START_TEST(equal_writes_are_not_one)
{
	struct asked a[20];
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		begin_write(&a[i], "INSERT INTO test_write.late VALUES (1)", RETURNS_NONE, -1);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ck_assert_int_eq(finish_write(&a[i]), OUTCOME_OK);
		ck_assert(!a[i].waiter.collapsed);
		end(&a[i]);
	}
	ck_assert_uint_eq(pg_ask("SELECT count(*) FROM test_write.late"), ELEMENTSOF(a));
}
END_TEST

START_TEST(of_equal_unique_values_one_is_written)
{
	struct asked a[20];
	unsigned ok = 0, refused = 0;
	for (size_t i = 0; i < ELEMENTSOF(a); i++)
		begin_write(&a[i], INSERT(1), RETURNS_JSON, -1);
	for (size_t i = 0; i < ELEMENTSOF(a); i++) {
		ok += finish_write(&a[i]) == OUTCOME_OK;
		refused += !strcmp(answer_of(&a[i])->sqlstate, "23505");
		end(&a[i]);
	}
	ck_assert_uint_eq(ok, 1);
	ck_assert_uint_eq(refused, ELEMENTSOF(a) - 1);
	ck_assert_uint_eq(items(), 1);
}
END_TEST

START_TEST(works_without_preparing)
{
	struct pool_options p = {.url = relay->url,
	                         .min = 1,
	                         .max = 2,
	                         .acquire_timeout_ms = PATIENCE_MS,
	                         .prepare = false};
	pool_configure(pool, &p);
	for (unsigned i = 0; i < 3; i++) {
		pg_ask("TRUNCATE test_write.item CASCADE");
		ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
	}
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_SQL_ERROR);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------ */

static void check_refused(const char *text, const char *sqlstate)
{
	struct asked a;
	ck_assert_int_eq(write_json(&a, text), OUTCOME_SQL_ERROR);
	ck_assert_str_eq(answer_of(&a)->sqlstate, sqlstate);
	ck_assert_ptr_nonnull(answer_of(&a)->message);
	ck_assert_ptr_null(answer_of(&a)->body);
	end(&a);
}

START_TEST(what_is_refused_leaves_nothing)
{
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
	check_refused(INSERT(1), "23505");
	check_refused("INSERT INTO test_write.item VALUES (NULL) RETURNING to_json(id)", "23502");
	check_refused("SELECT 1 / 0", "22012");
	check_refused("SELECT nonsense", "42703");
	check_refused("INSERT INTO test_write.refused VALUES (1)", "42501");
	/* Found by SET CONSTRAINTS, when the statement has succeeded. */
	check_refused("INSERT INTO test_write.item VALUES (2, 99) RETURNING to_json(id)", "23503");
	/* Found by COMMIT itself. */
	check_refused("INSERT INTO test_write.late VALUES (-1) RETURNING to_json(n)", "P0001");
	ck_assert_uint_eq(items(), 1);
	ck_assert_uint_eq(pg_ask("SELECT count(*) FROM test_write.late"), 0);
	ck_assert_uint_eq(atomic_load(&relay->sessions), 1); /* each left the session as it was */
	ck_assert_uint_eq(stats().retries, 0);
	struct listener_stats s;
	listener_stats(listener, &s);
	ck_assert_uint_eq(s.late_syncs, 0); /* nobody waited for what was not committed */
}
END_TEST

/* ---- tries --------------------------------------------------------------------------- */

/* Fails that many times with that state, at the place that comes with it, then succeeds. */
static const char *const CONFLICTS[] = {
    "SELECT to_json(test_write.fail(%u, '40001')) FROM test_write.add(1)",
    "SELECT to_json(test_write.fail(%u, '40P01')) FROM test_write.add(1)",
    "INSERT INTO test_write.late VALUES (1000 + %u) RETURNING to_json(n)", /* at COMMIT */
};

START_TEST(a_conflict_is_tried_again_three_times)
{
	struct asked a;
	for (unsigned times = 2; times <= 4; times++) {
		_cleanup_free_ char *text = xasprintf(CONFLICTS[_i], times);
		pg_ask("ALTER SEQUENCE test_write.tries RESTART; TRUNCATE test_write.item CASCADE");
		uint64_t retries = stats().retries;
		enum outcome o = write_json(&a, text);
		ck_assert_int_eq(o, times <= 3 ? OUTCOME_OK : OUTCOME_SQL_ERROR);
		if (times > 3)
			ck_assert_str_eq(answer_of(&a)->sqlstate, _i == 1 ? "40P01" : "40001");
		ck_assert_uint_eq(stats().retries - retries, MIN(times, 3));
		ck_assert_uint_eq(items(), _i < 2 && times <= 3);
		end(&a);
	}
	struct listener_stats s;
	listener_stats(listener, &s);
	ck_assert_uint_eq(s.syncs, 2);
}
END_TEST

/* Twice in a row: both take a row of their own first, and then, when both have, the other's. */
START_TEST(a_deadlock_is_resolved)
{
	struct asked a, b;
	ck_assert_int_eq(
	    outcome_of("INSERT INTO test_write.item VALUES (1), (2) RETURNING to_json(id)"),
	    OUTCOME_OK);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t retries = stats().retries;
		close_gate();
		begin_write(&a, "SELECT test_write.take(1, 2)", RETURNS_NONE, -1);
		begin_write(&b, "SELECT test_write.take(2, 1)", RETURNS_NONE, -1);
		WAIT_UNTIL(pg_running() == 2);
		open_gate();
		ck_assert_int_eq(finish_write(&a), OUTCOME_OK);
		ck_assert_int_eq(finish_write(&b), OUTCOME_OK);
		ck_assert_uint_ge(stats().retries, retries + 1);
		end(&a);
		end(&b);
	}
	ck_assert_uint_eq(pg_ask("SELECT sum(taken) FROM test_write.item"), 8);
}
END_TEST

/* Its columns have changed, which is seen before it is begun. */
START_TEST(a_forgotten_statement_is_run_again)
{
	static const char text[] = "INSERT INTO test_write.changing VALUES (1) RETURNING *";
	struct asked a;
	pg_ask("SET client_min_messages = error;"
	       "DROP TABLE IF EXISTS test_write.changing; CREATE TABLE test_write.changing (a int);"
	       "GRANT ALL ON test_write.changing TO public");
	ck_assert_int_eq(write_as(&a, text, RETURNS_ROWS, -1), OUTCOME_OK);
	end(&a);
	pg_ask("ALTER TABLE test_write.changing ADD COLUMN b int");
	ck_assert_int_eq(write_as(&a, text, RETURNS_ROWS, -1), OUTCOME_OK);
	ck_assert_uint_eq(answer_of(&a)->body_len, strlen("[{\"a\":1,\"b\":null}]"));
	end(&a);
	ck_assert_uint_eq(stats().retries, 1);
	ck_assert_uint_eq(pg_ask("SELECT count(*) FROM test_write.changing"), 2);
}
END_TEST

/* ---- lost connections ---------------------------------------------------------------- */

START_TEST(a_connection_that_died_while_idle_is_passed_over)
{
	relay_cut(relay);
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
	ck_assert_uint_eq(stats().retries, 0);
}
END_TEST

START_TEST(what_the_server_ended_in_the_transaction_is_not_committed)
{
	static const char *const texts[] = {
	    PG_TERMINATED,                                                  /* in the statement */
	    "INSERT INTO test_write.fatal VALUES (1) RETURNING to_json(n)", /* SET CONSTRAINTS */
	};
	uint64_t now = generations_now(generations);
	ck_assert_int_eq(outcome_of(texts[_i]), OUTCOME_DB_LOST);
	ck_assert_uint_eq(stats().statements, 1);
	ck_assert_uint_eq(pg_ask("SELECT count(*) FROM test_write.fatal"), 0);
	ck_assert(!epoch_was_raised_since(now));
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
}
END_TEST

/* COMMIT's own end may come after it was durable: the token decides, and does not come. */
START_TEST(what_the_server_ended_in_commit_is_not_known)
{
	uint64_t now = generations_now(generations);
	wait_for_tokens(300);
	ck_assert_int_eq(outcome_of("INSERT INTO test_write.late VALUES (-2) RETURNING to_json(n)"),
	                 OUTCOME_UNKNOWN);
	ck_assert_uint_eq(stats().statements, 1);
	ck_assert_uint_eq(pg_ask("SELECT count(*) FROM test_write.late"), 0);
	ck_assert(epoch_was_raised_since(now));
}
END_TEST

/* It was committed, and nothing that the server said of it has arrived. */
START_TEST(a_committed_write_may_have_lost_its_answer)
{
	static const enum returns returns[] = {RETURNS_JSON, RETURNS_NONE};
	enum outcome expected = _i ? OUTCOME_OK : OUTCOME_ANSWER_LOST;
	struct asked a;
	uint64_t now = generations_now(generations);
	atomic_store(&relay->muted, true);
	begin_write(&a, INSERT(1), returns[_i], -1);
	WAIT_UNTIL(items() == 1);
	ck_assert(!is_done(&a));
	relay_cut(relay);
	if (!listener)
		expected = OUTCOME_UNKNOWN;
	ck_assert_int_eq(finish_write(&a), expected);
	ck_assert_uint_eq(stats().statements, 1);
	ck_assert_int_eq(epoch_was_raised_since(now), !listener);
	end(&a);
}
END_TEST

/* A connection that has nothing prepared. */
static void renew_connection(void)
{
	struct pool_stats s;
	pool_stats(pool, &s);
	uint64_t before = s.connects;
	relay_cut(relay);
	WAIT_UNTIL((pool_stats(pool, &s), s.connects > before && s.idle == 1));
}

/* Whatever is cut where, what the caller is told is true. False: there was no connection. */
static bool check_cut(atomic_long *left, long bytes, unsigned *ret_outcomes)
{
	struct asked a;
	renew_connection();
	pg_ask("TRUNCATE test_write.item CASCADE");
	atomic_store(left, bytes);
	enum outcome o = write_json(&a, INSERT(1));
	atomic_store(left, -1);
	/* The session may be at it still. */
	WAIT_UNTIL(
	    pg_sessions("count(*) FILTER (WHERE state <> 'idle' OR wait_event_type IS NULL)") == 0);
	bool committed = items() == 1, told = o == OUTCOME_OK || o == OUTCOME_ANSWER_LOST;
	if (o != OUTCOME_UNKNOWN)
		ck_assert_msg(committed == told, "%d after %ld bytes", o, bytes);
	ck_assert(o == OUTCOME_OK ? answer_of(&a)->body_len == 1 : !answer_of(&a)->body);
	end(&a);
	ret_outcomes[o]++;
	return o != OUTCOME_DB_DOWN && o != OUTCOME_POOL_TIMEOUT;
}

static void sweep(atomic_long *count, atomic_long *left, long step, unsigned *ret_outcomes)
{
	long before = atomic_load(count);
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
	wait_for_tokens(50);
	long whole = atomic_load(count) - before;
	for (long bytes = 0; bytes < whole; bytes += step)
		while (!check_cut(left, bytes, ret_outcomes))
			;
	ck_assert_uint_eq(stats().retries, 0);
}

START_TEST(a_request_that_is_cut_anywhere_is_told_of_truly)
{
	unsigned outcomes[OUTCOME_COUNT] = {0};
	sweep(&relay->up, &relay->up_left, 19, outcomes);
	ck_assert_uint_gt(outcomes[OUTCOME_UNKNOWN], 10);
}
END_TEST

START_TEST(an_answer_that_is_cut_anywhere_is_told_of_truly)
{
	unsigned outcomes[OUTCOME_COUNT] = {0};
	sweep(&relay->down, &relay->down_left, 11, outcomes);
	ck_assert_uint_gt(outcomes[OUTCOME_UNKNOWN] + outcomes[OUTCOME_ANSWER_LOST], 5);
	ck_assert_uint_gt(outcomes[OUTCOME_OK], 0);
}
END_TEST

/* ---- deadlines ----------------------------------------------------------------------- */

/* The server is asked to cancel it for a second. Where a machine is too busy for that, it is not
 * known how it ended, and the test writes again. */
static bool is_known(struct asked *a)
{
	enum outcome o = finish_write(a);
	if (o != OUTCOME_UNKNOWN && o != OUTCOME_ANSWER_LOST)
		return true;
	end(a);
	relay_hold(relay, false);
	WAIT_UNTIL(
	    pg_sessions("count(*) FILTER (WHERE state <> 'idle' OR wait_event_type IS NULL)") == 0);
	pg_ask("TRUNCATE test_write.item CASCADE");
	struct pool_stats s;
	WAIT_UNTIL((pool_stats(pool, &s), s.idle == 1));
	return false;
}

START_TEST(past_its_deadline_it_is_undone)
{
	struct asked a;
	uint64_t now;
	wait_for_tokens(300);
	do {
		now = generations_now(generations);
		begin_write(&a, SLOW_INSERT, RETURNS_JSON, 200);
	} while (!is_known(&a));
	ck_assert_int_eq(answer_of(&a)->outcome, OUTCOME_DEADLINE);
	ck_assert_uint_ge(answer_of(&a)->db_us, 200000);
	end(&a);
	ck_assert_uint_eq(pg_running(), 0); /* already: it was waited for */
	ck_assert_uint_eq(items(), 0);
	ck_assert(!epoch_was_raised_since(now));
	ck_assert_int_eq(outcome_of(INSERT(1)), OUTCOME_OK);
	ck_assert_uint_ge(atomic_load(&relay->cancels), 1);
}
END_TEST

/* The cancel is held; the statement ends by itself, and COMMIT is behind it. */
START_TEST(what_was_faster_than_its_cancel_is_committed)
{
	static const char text[] =
	    "INSERT INTO test_write.item SELECT 1 FROM pg_advisory_xact_lock_shared(77)"
	    " RETURNING to_json(id)";
	struct asked a;
	struct pool_stats s;
	wait_for_tokens(300);
	do {
		pool_stats(pool, &s);
		uint64_t cancels = s.cancels;
		relay_hold(relay, true);
		close_gate();
		begin_write(&a, text, RETURNS_JSON, 50);
		WAIT_UNTIL((pool_stats(pool, &s), s.cancels > cancels));
		open_gate();
	} while (!is_known(&a));
	ck_assert_int_eq(answer_of(&a)->outcome, OUTCOME_OK);
	relay_hold(relay, false);
	ck_assert_uint_eq(answer_of(&a)->body_len, 1);
	end(&a);
	ck_assert_uint_eq(items(), 1);
	/* Until the cancel has arrived nobody gets the connection. */
	ck_assert_int_eq(outcome_of("INSERT INTO test_write.item SELECT 2 FROM pg_sleep(0.1)"
	                            " RETURNING to_json(id)"),
	                 OUTCOME_OK);
}
END_TEST

START_TEST(a_cancel_and_an_end_may_meet)
{
	struct asked a;
	unsigned committed = 0;
	for (unsigned i = 0; i < 40; i++) {
		_cleanup_free_ char *text =
		    xasprintf("INSERT INTO test_write.item SELECT %u FROM pg_sleep(0.02)"
		              " RETURNING to_json(id)",
		              i);
		enum outcome o = write_as(&a, text, RETURNS_JSON, 15 + i % 10);
		ck_assert(o == OUTCOME_OK || o == OUTCOME_DEADLINE);
		committed += o == OUTCOME_OK;
		ck_assert_uint_eq(items(), committed);
		end(&a);
	}
}
END_TEST

START_TEST(what_cannot_be_cancelled_is_not_known)
{
	struct asked a;
	wait_for_tokens(300);
	relay_hold(relay, true);
	uint64_t begun = clock_us(), now = generations_now(generations);
	ck_assert_int_eq(write_as(&a, SLOW_INSERT, RETURNS_JSON, 50), OUTCOME_UNKNOWN);
	ck_assert_uint_ge(clock_us() - begun, 1000000);
	ck_assert(epoch_was_raised_since(now));
	end(&a);
	relay_hold(relay, false);
	WAIT_UNTIL(pg_running() == 0);
	ck_assert_uint_eq(items(), 0);
}
END_TEST

/* What waits is answered first: by then the engine is stopping. */
static void *open_gate_when_told(void *arg)
{
	WAIT_UNTIL(is_done(arg));
	open_gate();
	return NULL;
}

START_TEST(a_stop_undoes_what_takes_too_long)
{
	struct asked slow, quick, waiting, late;
	pthread_t opener;
	close_gate();
	begin_write(&slow, SLOW_INSERT, RETURNS_JSON, -1);
	begin_write(&quick,
	            "INSERT INTO test_write.item SELECT 2 FROM pg_advisory_xact_lock_shared(77)",
	            RETURNS_NONE, -1);
	WAIT_UNTIL(pg_running() == 2);
	begin_write(&waiting, INSERT(3), RETURNS_JSON, -1);
	ck_assert_int_eq(pthread_create(&opener, NULL, open_gate_when_told, &waiting), 0);
	uint64_t begun = clock_us();
	engine_stop(engine, begun + 3000000);
	pthread_join(opener, NULL);
	ck_assert_uint_lt(clock_us() - begun, 60000000);
	ck_assert_int_eq(answer_of(&slow)->outcome, OUTCOME_STOPPING);
	ck_assert_int_eq(answer_of(&quick)->outcome, OUTCOME_OK);
	ck_assert_int_eq(answer_of(&waiting)->outcome, OUTCOME_STOPPING);
	ck_assert_uint_eq(items(), 1);
	prepare(&late, INSERT(3), -1);
	ck_assert_int_eq(submit_write(&late), -ESHUTDOWN);
	end(&late);
	end(&waiting);
	end(&quick);
	end(&slow);
}
END_TEST

/* ---- the queue ----------------------------------------------------------------------- */

START_TEST(a_write_that_waits_expires_and_is_not_run)
{
	struct engine_options o = options(1, 2);
	struct asked busy, waiting[2], more;
	ck_assert_int_eq(engine_configure(engine, &o), 0);
	close_gate();
	begin_write(&busy, PG_GATED, RETURNS_JSON, -1);
	WAIT_UNTIL(pg_running() == 1);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++)
		begin_write(&waiting[i], INSERT(1), RETURNS_JSON, -1);
	prepare(&more, INSERT(1), -1);
	ck_assert_int_eq(submit_write(&more), -EAGAIN);
	end(&more);
	/* Nobody leaves a write. */
	engine_abandon(engine, busy.waiter.ticket);
	engine_abandon(engine, waiting[0].waiter.ticket);
	ck_assert_uint_eq(stats().waiting, 2);
	engine_expire(engine, clock_us() + 60000000);
	for (size_t i = 0; i < ELEMENTSOF(waiting); i++) {
		ck_assert_int_eq(finish_write(&waiting[i]), OUTCOME_QUEUE_TIMEOUT);
		end(&waiting[i]);
	}
	ck_assert(!is_done(&busy));
	open_gate();
	ck_assert_int_eq(finish_write(&busy), OUTCOME_OK);
	end(&busy);
	ck_assert_uint_eq(items(), 0);
}
END_TEST

/* ---- the program --------------------------------------------------------------------- */

/* item tells of its changes as the triggers of Provost do; parent is checked late. late fails, or
 * ends its session, in COMMIT only: what its trigger inserts into `later` is checked then. fatal
 * ends it in SET CONSTRAINTS. */
static void create_objects(void)
{
	pg_open();
	pg_ask(
	    "SET client_min_messages = error;"
	    "DROP SCHEMA IF EXISTS test_write CASCADE;"
	    "CREATE SCHEMA test_write;"
	    "GRANT USAGE ON SCHEMA test_write TO public;"
	    "ALTER DEFAULT PRIVILEGES IN SCHEMA test_write GRANT ALL ON TABLES TO public;"
	    "ALTER DEFAULT PRIVILEGES IN SCHEMA test_write GRANT ALL ON SEQUENCES TO public;"
	    "CREATE TABLE test_write.item (id integer PRIMARY KEY,"
	    " parent integer REFERENCES test_write.item DEFERRABLE INITIALLY DEFERRED,"
	    " taken integer NOT NULL DEFAULT 0);"
	    "CREATE FUNCTION test_write.tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
	    " PERFORM pg_notify('provost', '{\"table\":\"test_write.item\",\"op\":\"INSERT\"}');"
	    " RETURN NULL; END$$;"
	    "CREATE TRIGGER tell AFTER INSERT ON test_write.item EXECUTE FUNCTION "
	    "test_write.tell();"
	    "CREATE TABLE test_write.refused (a integer);"
	    "REVOKE ALL ON test_write.refused FROM public;"
	    "CREATE SEQUENCE test_write.tries;"
	    "CREATE FUNCTION test_write.fail(times integer, state text) RETURNS integer"
	    " LANGUAGE plpgsql AS $$BEGIN"
	    " IF nextval('test_write.tries') <= times THEN"
	    "  RAISE EXCEPTION 'again' USING ERRCODE = state; END IF;"
	    " RETURN 1; END$$;"
	    "CREATE FUNCTION test_write.add(n integer) RETURNS SETOF integer LANGUAGE sql AS"
	    " 'INSERT INTO test_write.item VALUES (n) RETURNING id';"
	    "CREATE FUNCTION test_write.take(a integer, b integer) RETURNS void LANGUAGE plpgsql AS"
	    " $$BEGIN UPDATE test_write.item SET taken = taken + 1 WHERE id = a;"
	    " PERFORM pg_advisory_xact_lock_shared(77);"
	    " UPDATE test_write.item SET taken = taken + 1 WHERE id = b; END$$;"

	    "CREATE TABLE test_write.late (n integer);"
	    "CREATE TABLE test_write.later (n integer);"
	    "CREATE FUNCTION test_write.put_off() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
	    " SET CONSTRAINTS ALL DEFERRED;"
	    " INSERT INTO test_write.later VALUES (NEW.n); RETURN NULL; END$$;"
	    "CREATE FUNCTION test_write.judge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
	    " IF NEW.n = -1 THEN RAISE EXCEPTION 'too late'; END IF;"
	    " IF NEW.n = -2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
	    " IF NEW.n >= 1000 THEN PERFORM test_write.fail(NEW.n - 1000, '40001'); END IF;"
	    " RETURN NULL; END$$;"
	    "CREATE CONSTRAINT TRIGGER put_off AFTER INSERT ON test_write.late"
	    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION test_write.put_off();"
	    "CREATE CONSTRAINT TRIGGER judge AFTER INSERT ON test_write.later"
	    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION test_write.judge();"

	    "CREATE TABLE test_write.fatal (n integer);"
	    "CREATE FUNCTION test_write.die() RETURNS trigger LANGUAGE plpgsql AS"
	    " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;"
	    "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON test_write.fatal"
	    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION test_write.die();");
	pg_close();
}

static void add_alone(Suite *s)
{
	TCase *c = tcase_create("alone");
	tcase_add_checked_fixture(c, setup_alone, teardown_writer);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, without_a_listener_everything_is_old_after_it);
	tcase_add_test(c, works_without_preparing);
	tcase_add_loop_test(c, a_committed_write_may_have_lost_its_answer, 0, 2);
	tcase_add_test(c, what_the_server_ended_in_commit_is_not_known);
	tcase_add_test(c, past_its_deadline_it_is_undone);
	suite_add_tcase(s, c);
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("write");
	TCase *c = tcase_create("listened");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup_listened, teardown_writer);
	tcase_set_timeout(c, 90);
	tcase_add_test(c, a_write_commits_and_is_heard_of);
	tcase_add_test(c, a_token_that_does_not_come_makes_everything_old);
	tcase_add_test(c, a_write_without_a_row_commits);
	tcase_add_test(c, rows_are_rendered_as_of_reads);
	tcase_add_test(c, equal_writes_are_not_one);
	tcase_add_test(c, of_equal_unique_values_one_is_written);
	tcase_add_test(c, works_without_preparing);
	tcase_add_test(c, what_is_refused_leaves_nothing);
	tcase_add_loop_test(c, a_conflict_is_tried_again_three_times, 0, ELEMENTSOF(CONFLICTS));
	tcase_add_test(c, a_deadlock_is_resolved);
	tcase_add_test(c, a_forgotten_statement_is_run_again);
	tcase_add_test(c, a_connection_that_died_while_idle_is_passed_over);
	tcase_add_loop_test(c, what_the_server_ended_in_the_transaction_is_not_committed, 0, 2);
	tcase_add_test(c, what_the_server_ended_in_commit_is_not_known);
	tcase_add_loop_test(c, a_committed_write_may_have_lost_its_answer, 0, 2);
	tcase_add_test(c, a_request_that_is_cut_anywhere_is_told_of_truly);
	tcase_add_test(c, an_answer_that_is_cut_anywhere_is_told_of_truly);
	tcase_add_test(c, past_its_deadline_it_is_undone);
	tcase_add_test(c, what_was_faster_than_its_cancel_is_committed);
	tcase_add_test(c, a_cancel_and_an_end_may_meet);
	tcase_add_test(c, what_cannot_be_cancelled_is_not_known);
	tcase_add_test(c, a_stop_undoes_what_takes_too_long);
	tcase_add_test(c, a_write_that_waits_expires_and_is_not_run);
	suite_add_tcase(s, c);
	add_alone(s);
	conn_global_init();
	return pg_run_suite(s);
}
