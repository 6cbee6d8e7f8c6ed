#include <errno.h>

#include "real_pg.h"

#include "provost/conn.h"

enum { SECOND_US = 1000000 };

static struct relay *relay;
static struct conn *conn;
static struct stmt made[64];
static size_t statements;

/* ---- helpers ------------------------------------------------------------------------- */

static uint64_t in_time(void)
{
	return clock_us() + 60 * SECOND_US;
}

static struct conn *open_conn(const char *url, bool prepare)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct conn *c = conn_open(url, prepare, -1, in_time(), errs);
	ck_assert_ptr_nonnull(c);
	return c;
}

static void setup(void)
{
	pg_open();
	relay = relay_start(0);
	conn = open_conn(relay->url, true);
}

static void teardown(void)
{
	conn_free(&conn);
	while (statements > 0)
		stmt_done(&made[--statements]);
	relay_stop(&relay);
	pg_close();
}

/* A statement, which lives as long as the test. */
static const struct stmt *statement(const char *text, size_t binds)
{
	ck_assert_uint_lt(statements, ELEMENTSOF(made));
	struct stmt *s = &made[statements++];
	*s = (struct stmt){.sql = xstrdup(text), .sql_len = strlen(text), .binds = binds};
	s->oid = xcalloc(binds + 1, sizeof *s->oid);
	for (size_t i = 0; i < binds; i++)
		s->oid[i] = 25; /* text */
	stmt_seal(s);
	return s;
}

static const char *value(const struct conn_step *step)
{
	const PGresult *r = (const PGresult *)step->result;
	ck_assert_ptr_nonnull(r);
	ck_assert_msg(!*conn_sqlstate(step->result), "%s", PQresultErrorMessage(r));
	ck_assert_int_eq(PQntuples(r), 1);
	return PQgetvalue(r, 0, 0);
}

static const char *state(const struct conn_step *step)
{
	ck_assert_ptr_nonnull(step->result);
	return conn_sqlstate(step->result);
}

static void clear(struct conn_step *step, size_t n)
{
	for (size_t i = 0; i < n; i++)
		conn_result_free(&step[i].result);
}

#define RUN(step, timeout_us)                                                                      \
	conn_pipeline(conn, step, ELEMENTSOF(step), clock_us() + (timeout_us), NULL)
#define CLEAR(step) clear(step, ELEMENTSOF(step))

/* Ends what the session runs, from outside. */
static void end_from_outside(const char *how)
{
	_cleanup_free_ char *sql = xasprintf("SELECT %s(pid) FROM pg_stat_activity"
	                                     " WHERE application_name = 'test-%d'",
	                                     how, (int)getpid());
	pg_ask(sql);
}

static bool is_drained(void)
{
	struct pollfd p = {.fd = conn_fd(conn), .events = POLLIN};
	if (poll(&p, 1, 10) > 0)
		return conn_drain(conn) == CONN_CLEAN;
	return conn_condition(conn) == CONN_CLEAN;
}

/* Rows as they come. */
struct counter {
	struct row_sink sink;
	unsigned rows;
	size_t bytes;
	int fail; /* what it says to the second row */
};

static int count_row(struct row_sink *sink, struct pg_result **row)
{
	struct counter *k = (struct counter *)sink;
	k->rows++;
	k->bytes += (size_t)PQgetlength((PGresult *)*row, 0, 0);
	return k->rows == 2 ? k->fail : 0;
}

/* ---- results and groups -------------------------------------------------------------- */

START_TEST(each_step_has_its_result)
{
	struct counter k = {.sink.row = count_row};
	const char *hello[] = {"hello", "you"};
	struct conn_step step[] = {
	    {.sql = "SELECT 1"},
	    {.stmt = statement("SELECT $1", 1), .values = hello},
	    {.sql = "SELECT 3", .sync = true},
	    {.stmt = statement("SELECT generate_series(1, 1000)", 0),
	     .sink = &k.sink,
	     .sync = true},
	    {.sql = "SELECT $1 || $2", .values = hello, .texts = 2},
	    {.stmt = statement("SELECT 6", 0), .sync = true},
	};
	bool sent = false;
	ck_assert_int_eq(conn_pipeline(conn, step, ELEMENTSOF(step), in_time(), &sent), 0);
	ck_assert(sent);
	ck_assert_str_eq(value(&step[0]), "1");
	ck_assert_str_eq(value(&step[1]), "hello");
	ck_assert_str_eq(value(&step[2]), "3");
	ck_assert_int_eq(PQntuples((PGresult *)step[3].result), 0);
	ck_assert_uint_eq(k.rows, 1000);
	ck_assert_str_eq(value(&step[4]), "helloyou");
	ck_assert_str_eq(value(&step[5]), "6");
	ck_assert_str_eq(conn_tag(step[5].result), "SELECT 1");
	ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
	CLEAR(step);
}
END_TEST

START_TEST(a_failure_ends_its_group_only)
{
	struct conn_step step[] = {
	    {.sql = "SELECT 1", .sync = true},
	    {.sql = "SELECT 2"},
	    {.stmt = statement("SELECT 1/0", 0)},
	    {.sql = "SELECT 4"},
	    {.stmt = statement("SELECT 5", 0), .sync = true},
	    {.sql = "SELECT 6", .sync = true},
	};
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
		ck_assert_str_eq(value(&step[0]), "1");
		ck_assert_str_eq(value(&step[1]), "2");
		ck_assert_str_eq(state(&step[2]), "22012");
		ck_assert_str_eq(conn_tag(step[2].result), "");
		ck_assert_ptr_null(step[3].result);
		ck_assert_ptr_null(step[4].result);
		ck_assert_str_eq(value(&step[5]), "6");
		ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
		CLEAR(step);
	}
}
END_TEST

START_TEST(a_failed_transaction_answers_rollback)
{
	struct conn_step step[] = {
	    {.sql = "BEGIN READ WRITE"},
	    {.sql = "SELECT 1/0", .sync = true},
	    {.sql = "COMMIT", .sync = true},
	};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(conn_tag(step[2].result), "ROLLBACK");
	ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
	CLEAR(step);
	step[1].sql = "SELECT 1";
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(conn_tag(step[0].result), "BEGIN");
	ck_assert_str_eq(conn_tag(step[2].result), "COMMIT");
	ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
	CLEAR(step);
}
END_TEST

START_TEST(works_without_preparing)
{
	const char *hello[] = {"hello"};
	const struct stmt *s = statement("SELECT $1", 1);
	struct conn_step step[] = {
	    {.stmt = s, .values = hello},
	    {.stmt = s, .values = hello, .sync = true},
	    {.sql = "SELECT count(*) FROM pg_prepared_statements", .sync = true},
	};
	conn_free(&conn);
	conn = open_conn(relay->url, false);
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(value(&step[0]), "hello");
	ck_assert_str_eq(value(&step[1]), "hello");
	ck_assert_str_eq(value(&step[2]), "0");
	CLEAR(step);
}
END_TEST

START_TEST(a_sink_ends_the_pipeline)
{
	struct counter k = {.sink.row = count_row, .fail = -E2BIG};
	struct conn_step step[] = {
	    {.sql = "SELECT 1"},
	    {.sql = "SELECT generate_series(1, 10)", .sink = &k.sink, .sync = true},
	    {.sql = "SELECT 3", .sync = true},
	};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), -E2BIG);
	ck_assert_uint_eq(k.rows, 2);
	ck_assert_str_eq(value(&step[0]), "1");
	ck_assert_ptr_null(step[1].result);
	ck_assert_ptr_null(step[2].result);
	ck_assert_int_eq(conn_condition(conn), CONN_BROKEN);
	CLEAR(step);
}
END_TEST

/* ---- what is prepared ---------------------------------------------------------------- */

START_TEST(a_statement_is_prepared_once)
{
	const struct stmt *a = statement("SELECT 'a'", 0), *b = statement("SELECT 'b'", 0);
	struct conn_step step[] = {
	    {.stmt = a},
	    {.stmt = b, .sync = true},
	    {.stmt = a, .sync = true},
	    {.sql = "SELECT count(*) FROM pg_prepared_statements"},
	    {.stmt = b, .sync = true},
	};
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
		ck_assert_str_eq(value(&step[0]), "a");
		ck_assert_str_eq(value(&step[1]), "b");
		ck_assert_str_eq(value(&step[2]), "a");
		ck_assert_str_eq(value(&step[3]), "2");
		ck_assert_str_eq(value(&step[4]), "b");
		CLEAR(step);
	}
}
END_TEST

/* Its Prepare was skipped, and so was not noted: who relied on it is told so, and the next try
 * prepares it. */
START_TEST(what_was_to_be_prepared_in_a_failed_group_is_forgotten)
{
	const struct stmt *s = statement("SELECT 'a'", 0);
	struct conn_step step[] = {
	    {.sql = "SELECT 1/0"},
	    {.stmt = s, .sync = true},
	    {.stmt = s, .sync = true},
	};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_ptr_null(step[1].result);
	ck_assert_str_eq(state(&step[2]), "26000");
	ck_assert(conn_forgot(step[2].result, s));
	ck_assert(!conn_forgot(step[0].result, s));
	CLEAR(step);
	step[0].sql = "SELECT 1";
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(value(&step[1]), "a");
	ck_assert_str_eq(value(&step[2]), "a");
	CLEAR(step);
}
END_TEST

START_TEST(a_prepared_statement_outlives_its_transaction)
{
	const struct stmt *s = statement("SELECT 'a'", 0);
	struct conn_step step[] = {
	    {.sql = "BEGIN"},
	    {.stmt = s},
	    {.sql = "SELECT 1/0", .sync = true},
	    {.sql = "ROLLBACK", .sync = true},
	    {.stmt = s, .sync = true},
	};
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
		ck_assert_str_eq(value(&step[1]), "a");
		ck_assert_str_eq(value(&step[4]), "a");
		CLEAR(step);
	}
}
END_TEST

START_TEST(a_statement_that_does_not_parse_is_not_noted)
{
	const struct stmt *s = statement("SELECT * FROM test_pipeline.later", 0);
	struct conn_step step[] = {{.stmt = s, .sync = true}};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(state(&step[0]), "42P01");
	CLEAR(step);
	pg_ask("CREATE VIEW test_pipeline.later AS SELECT 1");
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	pg_ask("DROP VIEW test_pipeline.later");
	ck_assert_str_eq(value(&step[0]), "1");
	CLEAR(step);
}
END_TEST

enum lost_how { DEALLOCATED, CHANGED, CHANGED_AND_DEALLOCATED, LOST_HOWS };

static void lose(enum lost_how how)
{
	_cleanup_result_ struct pg_result *r = NULL;
	if (how != DEALLOCATED)
		pg_ask("ALTER TABLE test_pipeline.wide ADD COLUMN b integer");
	if (how != CHANGED)
		ck_assert_int_eq(conn_command(conn, "DEALLOCATE ALL", in_time(), &r), 0);
}

START_TEST(a_lost_statement_is_prepared_by_the_next_try)
{
	enum lost_how how = (enum lost_how)_i;
	pg_ask("SET client_min_messages = error;"
	       "DROP TABLE IF EXISTS test_pipeline.wide; CREATE TABLE test_pipeline.wide (a text);"
	       "GRANT SELECT ON test_pipeline.wide TO public");
	const struct stmt *s = statement("SELECT * FROM test_pipeline.wide", 0);
	struct conn_step step[] = {
	    {.sql = "BEGIN"},
	    {.stmt = s, .sync = true},
	    {.sql = "COMMIT", .sync = true},
	    {.stmt = s, .sync = true},
	};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(conn_tag(step[1].result), "SELECT 0");
	CLEAR(step);
	lose(how);
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	if (how != CHANGED_AND_DEALLOCATED || *conn_sqlstate(step[1].result)) {
		ck_assert_str_eq(state(&step[1]), how == CHANGED ? "0A000" : "26000");
		ck_assert(conn_forgot(step[1].result, s));
		ck_assert_str_eq(conn_tag(step[2].result), "ROLLBACK");
	}
	CLEAR(step);
	/* Behind a failure it cannot be deallocated either, which may take one try more. */
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(conn_tag(step[1].result), "SELECT 0");
	ck_assert_str_eq(conn_tag(step[2].result), "COMMIT");
	ck_assert_str_eq(conn_tag(step[3].result), "SELECT 0");
	CLEAR(step);
}
END_TEST

/* It is known to have changed, and is gone before it could be deallocated. */
START_TEST(a_changed_statement_may_be_gone_as_well)
{
	pg_ask("SET client_min_messages = error;"
	       "DROP TABLE IF EXISTS test_pipeline.wide; CREATE TABLE test_pipeline.wide (a text);"
	       "GRANT SELECT ON test_pipeline.wide TO public");
	const struct stmt *s = statement("SELECT * FROM test_pipeline.wide", 0);
	_cleanup_result_ struct pg_result *r = NULL;
	struct conn_step step[] = {{.stmt = s, .sync = true}};
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	CLEAR(step);
	lose(CHANGED);
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
	ck_assert_str_eq(state(&step[0]), "0A000");
	CLEAR(step);
	lose(DEALLOCATED);
	ck_assert_int_eq(conn_run(conn, s, NULL, in_time(), NULL, &r), 0);
	ck_assert_str_eq(conn_tag(r), "SELECT 0");
}
END_TEST

START_TEST(one_statement_is_prepared_anew_without_a_word)
{
	pg_ask("SET client_min_messages = error;"
	       "DROP TABLE IF EXISTS test_pipeline.wide; CREATE TABLE test_pipeline.wide (a text);"
	       "GRANT SELECT ON test_pipeline.wide TO public");
	const struct stmt *s = statement("SELECT * FROM test_pipeline.wide", 0);
	for (int i = -1; i < CHANGED_AND_DEALLOCATED; i++) {
		_cleanup_result_ struct pg_result *r = NULL;
		if (i >= 0)
			lose((enum lost_how)i);
		ck_assert_int_eq(conn_run(conn, s, NULL, in_time(), NULL, &r), 0);
		ck_assert_str_eq(conn_tag(r), "SELECT 0");
	}
}
END_TEST

/* ---- giving up ----------------------------------------------------------------------- */

START_TEST(past_its_deadline_it_may_be_waited_for_again)
{
	struct conn_step step[] = {
	    {.sql = "SELECT 1", .sync = true},
	    {.sql = PG_HANG, .sync = true},
	    {.stmt = statement("SELECT 3", 0), .sync = true},
	};
	ck_assert_int_eq(conn_pipeline_begin(conn, step, ELEMENTSOF(step), NULL), 0);
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), 1);
	ck_assert_str_eq(value(&step[0]), "1");
	ck_assert_int_eq(conn_pipeline_next(conn, clock_us() + 30000), -ETIMEDOUT);
	ck_assert_int_eq(conn_condition(conn), CONN_DIRTY);
	ck_assert_ptr_null(step[1].result);
	WAIT_UNTIL(pg_running() == 1); /* or it would not heed the cancel */
	end_from_outside("pg_cancel_backend");
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), 1);
	ck_assert_str_eq(state(&step[1]), "57014");
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), 0);
	ck_assert_str_eq(value(&step[2]), "3");
	conn_pipeline_end(conn);
	ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
	CLEAR(step);
}
END_TEST

/* The drain learns what has been prepared and what not; nobody's results go nowhere. */
START_TEST(what_is_given_up_is_drained)
{
	const struct stmt *a = statement("SELECT 'a'", 0), *b = statement("SELECT 'b'", 0),
	                  *rows = statement("SELECT generate_series(1, 10000)", 0);
	struct counter k = {.sink.row = count_row};
	struct conn_step step[] = {
	    {.sql = PG_HANG},
	    {.stmt = a, .sync = true},
	    {.stmt = b, .sync = true},
	    {.stmt = rows, .sink = &k.sink, .sync = true},
	    {.stmt = rows, .sync = true},
	};
	ck_assert_int_eq(RUN(step, 30000), -ETIMEDOUT);
	ck_assert_int_eq(conn_condition(conn), CONN_DIRTY);
	for (size_t i = 0; i < ELEMENTSOF(step); i++)
		ck_assert_ptr_null(step[i].result);
	WAIT_UNTIL(pg_running() == 1); /* or it would not heed the cancel */
	end_from_outside("pg_cancel_backend");
	WAIT_UNTIL(is_drained());
	ck_assert_uint_eq(k.rows, 0);
	for (size_t i = 0; i < ELEMENTSOF(step); i++)
		ck_assert_ptr_null(step[i].result);

	struct conn_step again[] = {
	    {.sql = "SELECT string_agg(statement, ',' ORDER BY statement)"
	            " FROM pg_prepared_statements"},
	    {.stmt = a},
	    {.stmt = b},
	    {.stmt = rows, .sync = true},
	};
	ck_assert_int_eq(RUN(again, 60 * SECOND_US), 0);
	ck_assert_str_eq(value(&again[0]), "SELECT 'b',SELECT generate_series(1, 10000)");
	ck_assert_str_eq(value(&again[1]), "a");
	ck_assert_str_eq(value(&again[2]), "b");
	ck_assert_int_eq(PQntuples((PGresult *)again[3].result), 10000);
	CLEAR(again);
}
END_TEST

START_TEST(who_waits_is_interrupted_unless_they_insist)
{
	_cleanup_close_ int abandon = eventfd(1, EFD_CLOEXEC);
	struct conn_step step[] = {{.sql = PG_GATED, .sync = true}};
	close_gate();
	conn_watch(conn, abandon);
	ck_assert_int_eq(conn_pipeline_begin(conn, step, 1, NULL), 0);
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), -ECANCELED);
	open_gate();
	conn_insist(conn, true);
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), 0);
	conn_pipeline_end(conn);
	conn_insist(conn, false);
	conn_watch(conn, -1);
	ck_assert_str_eq(value(&step[0]), "1");
	CLEAR(step);
}
END_TEST

/* ---- losing the connection ----------------------------------------------------------- */

#define FOUR_STEPS                                                                                 \
	{                                                                                          \
		{.sql = "SELECT 0"}, {.stmt = statement("SELECT 1", 0), .sync = true},             \
		    {.sql = "SELECT 2", .sync = true},                                             \
		    {.stmt = statement("SELECT 3", 0), .sync = true},                              \
	}

START_TEST(the_servers_last_words_are_in_the_step_that_it_was_at)
{
	struct conn_step step[] = FOUR_STEPS;
	bool sent = false;
	step[_i].stmt = _i % 2 ? statement(PG_TERMINATED, 0) : NULL;
	step[_i].sql = PG_TERMINATED;
	ck_assert_int_eq(conn_pipeline(conn, step, ELEMENTSOF(step), in_time(), &sent),
	                 -ECONNRESET);
	ck_assert(sent);
	for (int i = 0; i < (int)ELEMENTSOF(step); i++) {
		if (i < _i)
			ck_assert_int_eq(*value(&step[i]), '0' + i);
		else if (i == _i)
			ck_assert_str_eq(state(&step[i]), "57P01");
		else
			ck_assert_ptr_null(step[i].result);
	}
	ck_assert_int_eq(conn_condition(conn), CONN_BROKEN);
	CLEAR(step);
}
END_TEST

/* Without a word: what had come is there. */
START_TEST(a_cut_connection_leaves_what_had_come)
{
	struct conn_step step[] = FOUR_STEPS;
	step[_i].stmt = _i % 2 ? statement(PG_HANG, 0) : NULL;
	step[_i].sql = PG_HANG;
	ck_assert_int_eq(conn_pipeline_begin(conn, step, ELEMENTSOF(step), NULL), 0);
	for (int i = 0; i < _i; i++)
		if (step[i].sync)
			ck_assert_int_eq(conn_pipeline_next(conn, in_time()), 1);
	WAIT_UNTIL(pg_running() == 1);
	relay_cut(relay);
	ck_assert_int_eq(conn_pipeline_next(conn, in_time()), -ECONNRESET);
	conn_pipeline_end(conn);
	for (int i = 0; i < (int)ELEMENTSOF(step); i++) {
		/* The server sends at a Sync, or when it has nothing else to do. */
		if (i < _i - 1 || (i < _i && step[i].sync))
			ck_assert_int_eq(*value(&step[i]), '0' + i);
		else if (i >= _i)
			ck_assert_ptr_null(step[i].result);
	}
	ck_assert_int_eq(conn_condition(conn), CONN_BROKEN);
	end_from_outside("pg_terminate_backend");
	CLEAR(step);
}
END_TEST

START_TEST(nothing_is_sent_on_a_dead_connection)
{
	struct conn_step step[] = {{.sql = "SELECT 1", .sync = true}};
	bool sent = true;
	relay_cut(relay);
	WAIT_UNTIL(conn_drain(conn) == CONN_BROKEN);
	ck_assert_int_eq(conn_pipeline(conn, step, 1, in_time(), &sent), -ECONNRESET);
	ck_assert(!sent);
	CLEAR(step);
}
END_TEST

START_TEST(what_an_ended_session_said_is_heard_by_who_uses_it)
{
	struct conn_step step[] = {{.sql = "SELECT 1"}, {.sql = "SELECT 2", .sync = true}};
	end_from_outside("pg_terminate_backend");
	WAIT_UNTIL(pg_sessions("count(*)") == 0);
	ck_assert_int_eq(RUN(step, 60 * SECOND_US), -ECONNRESET);
	ck_assert_str_eq(state(&step[0]), "57P01");
	ck_assert_ptr_null(step[1].result);
	CLEAR(step);
}
END_TEST

/* ---- large values -------------------------------------------------------------------- */

/* More than what sockets hold, both ways at once: a side that only sends would wait for the other
 * for ever. So would the relay. */
START_TEST(large_values_go_both_ways_at_once)
{
	enum { BIG = 4 << 20 };
	_cleanup_free_ char *big = xcalloc(1, BIG + 1);
	const char *values[] = {memset(big, 'x', BIG)};
	struct counter k = {.sink.row = count_row};
	struct conn_step step[8];
	conn_free(&conn);
	conn = open_conn(getenv("PROVOST_TEST_APP_DSN"), true);
	for (size_t i = 0; i < ELEMENTSOF(step); i++)
		step[i] = (struct conn_step){.stmt = statement("SELECT $1", 1),
		                             .values = values,
		                             .sink = i % 2 ? &k.sink : NULL,
		                             .sync = i % 2};
	int r = RUN(step, 60 * SECOND_US);
	ck_assert_msg(r == 0, "%d: %s", r, conn_error(conn));
	ck_assert_uint_eq(k.rows, ELEMENTSOF(step) / 2);
	ck_assert_uint_eq(k.bytes, BIG * ELEMENTSOF(step) / 2);
	for (size_t i = 0; i < ELEMENTSOF(step); i += 2)
		ck_assert_uint_eq(strlen(value(&step[i])), BIG);
	ck_assert_int_eq(conn_condition(conn), CONN_CLEAN);
	CLEAR(step);
}
END_TEST

START_TEST(many_steps_are_one_pipeline)
{
	enum { MANY = 500 };
	static struct conn_step step[MANY];
	const struct stmt *s[50];
	for (size_t i = 0; i < ELEMENTSOF(s); i++) {
		_cleanup_free_ char *text = xasprintf("SELECT %zu", i);
		s[i] = statement(text, 0);
	}
	for (unsigned turn = 0; turn < 2; turn++) {
		for (size_t i = 0; i < MANY; i++)
			step[i] = (struct conn_step){.stmt = s[i % ELEMENTSOF(s)], .sync = true};
		ck_assert_int_eq(RUN(step, 60 * SECOND_US), 0);
		for (size_t i = 0; i < MANY; i++)
			ck_assert_int_eq(atoi(value(&step[i])), (int)(i % ELEMENTSOF(s)));
		CLEAR(step);
	}
}
END_TEST

/* ---- the program --------------------------------------------------------------------- */

static void create_objects(void)
{
	pg_open();
	pg_ask(
	    "SET client_min_messages = error;"
	    "DROP SCHEMA IF EXISTS test_pipeline CASCADE;"
	    "CREATE SCHEMA test_pipeline;"
	    "GRANT USAGE ON SCHEMA test_pipeline TO public;"
	    "ALTER DEFAULT PRIVILEGES IN SCHEMA test_pipeline GRANT SELECT ON TABLES TO public;");
	pg_close();
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("pipeline");
	TCase *c = tcase_create("pipeline");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 90);
	tcase_add_test(c, each_step_has_its_result);
	tcase_add_test(c, a_failure_ends_its_group_only);
	tcase_add_test(c, a_failed_transaction_answers_rollback);
	tcase_add_test(c, works_without_preparing);
	tcase_add_test(c, a_sink_ends_the_pipeline);
	tcase_add_test(c, a_statement_is_prepared_once);
	tcase_add_test(c, what_was_to_be_prepared_in_a_failed_group_is_forgotten);
	tcase_add_test(c, a_prepared_statement_outlives_its_transaction);
	tcase_add_test(c, a_statement_that_does_not_parse_is_not_noted);
	tcase_add_loop_test(c, a_lost_statement_is_prepared_by_the_next_try, 0, LOST_HOWS);
	tcase_add_test(c, a_changed_statement_may_be_gone_as_well);
	tcase_add_test(c, one_statement_is_prepared_anew_without_a_word);
	tcase_add_test(c, past_its_deadline_it_may_be_waited_for_again);
	tcase_add_test(c, what_is_given_up_is_drained);
	tcase_add_test(c, who_waits_is_interrupted_unless_they_insist);
	tcase_add_loop_test(c, the_servers_last_words_are_in_the_step_that_it_was_at, 0, 4);
	tcase_add_loop_test(c, a_cut_connection_leaves_what_had_come, 0, 4);
	tcase_add_test(c, nothing_is_sent_on_a_dead_connection);
	tcase_add_test(c, what_an_ended_session_said_is_heard_by_who_uses_it);
	tcase_add_test(c, large_values_go_both_ways_at_once);
	tcase_add_test(c, many_steps_are_one_pipeline);
	suite_add_tcase(s, c);
	conn_global_init();
	return pg_run_suite(s);
}
