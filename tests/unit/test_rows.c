#include <check.h>
#include <libpq-fe.h>
#include <string.h>

#include "provost/rows.h"

enum {
	BOOL = 16,
	INT4 = 23,
	TEXT = 25,
	JSON = 114,
	FLOAT8 = 701,
	TIMESTAMP = 1114,
	TIMESTAMPTZ = 1184
};
enum { NUMERIC = 1700, JSONB = 3802, INTS = 1007, TEXTS = 1009, BOOLS = 1000, NUMERICS = 1231 };
enum { JSONBS = 3807, TIMESTAMPTZS = 1185, UNKNOWN = 70000 };

static const struct {
	uint32_t oid;
	const char *text, *json;
} values[] = {
    {BOOL, "t", "true"},
    {BOOL, "f", "false"},
    {INT4, "-12", "-12"},
    {NUMERIC, "1.50", "1.50"},
    {NUMERIC, "NaN", "\"NaN\""},
    {FLOAT8, "-Infinity", "\"-Infinity\""},
    {FLOAT8, "1e+300", "1e+300"},
    {TEXT, "", "\"\""},
    {TEXT, "a\"\\\n\x01", "\"a\\\"\\\\\\n\\u0001\""},
    {JSON, "{\"a\" :1}", "{\"a\" :1}"},
    {JSONB, "null", "null"},
    {TIMESTAMP, "2026-01-02 03:04:05.6", "\"2026-01-02T03:04:05.6\""},
    {TIMESTAMPTZ, "2026-01-02 03:04:05+00", "\"2026-01-02T03:04:05+00:00\""},
    {TIMESTAMPTZ, "infinity", "\"infinity\""},
    {TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC", "\"0044-03-15 12:00:00+00 BC\""},
    {UNKNOWN, "{a,b}", "\"{a,b}\""},
    {INTS, "{}", "[]"},
    {INTS, "{1,NULL,-3}", "[1,null,-3]"},
    {INTS, "[0:1]={1,2}", "[1,2]"},
    {INTS, "{{1,2},{3,4}}", "[[1,2],[3,4]]"},
    {BOOLS, "{t,f,NULL}", "[true,false,null]"},
    {NUMERICS, "{1.50,NaN}", "[1.50,\"NaN\"]"},
    {TEXTS, "{a,\"b c\",\"\",NULL,\"NULL\"}", "[\"a\",\"b c\",\"\",null,\"NULL\"]"},
    {TEXTS, "{\"{\",\"}\",\",\",\"\\\"\",\"\\\\\"}", "[\"{\",\"}\",\",\",\"\\\"\",\"\\\\\"]"},
    {TEXTS, "{{a,NULL},{\"b,c\",d}}", "[[\"a\",null],[\"b,c\",\"d\"]]"},
    {JSONBS, "{\"{\\\"a\\\": [1, \\\"b\\\"]}\",\"null\"}", "[{\"a\": [1, \"b\"]},null]"},
    {TIMESTAMPTZS, "{\"2026-01-02 03:04:05+00\"}", "[\"2026-01-02T03:04:05+00:00\"]"},
};

static void expect(const struct buf *b, const char *json)
{
	ck_assert(!b->failed);
	ck_assert_msg(b->len == strlen(json) && !memcmp(b->data, json, b->len), "%.*s is not %s",
	              (int)b->len, b->data, json);
}

START_TEST(value)
{
	_cleanup_buf_ struct buf b = {0};
	rows_value(values[_i].oid, values[_i].text, strlen(values[_i].text), &b);
	expect(&b, values[_i].json);
}
END_TEST

/* Nothing is read past the end of a value that ends too early: a tool sees to that. */
START_TEST(value_cut_short)
{
	size_t len = strlen(values[_i].text);
	for (size_t n = 1; n < len; n++) {
		_cleanup_buf_ struct buf b = {0};
		_cleanup_free_ char *copy = malloc(n);
		memcpy(copy, values[_i].text, n);
		rows_value(values[_i].oid, copy, n, &b);
		ck_assert(!b.failed);
	}
}
END_TEST

START_TEST(value_without_room)
{
	for (size_t max = 1; max < strlen(values[_i].json); max++) {
		_cleanup_buf_ struct buf b = {.max = max};
		rows_value(values[_i].oid, values[_i].text, strlen(values[_i].text), &b);
		ck_assert(b.failed && b.len <= max);
	}
}
END_TEST

/* ---- whole results -----------------------------------------------------------------------------
 */

static struct pg_result *two_rows(void)
{
	static char id[] = "id", name[] = "the \"Name\"", one[] = "1", two[] = "2", text[] = "a\tb";
	PGresAttDesc columns[] = {{.name = id, .typid = INT4}, {.name = name, .typid = TEXT}};
	PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	ck_assert(r && PQsetResultAttrs(r, 2, columns));
	ck_assert(PQsetvalue(r, 0, 0, one, 1) && PQsetvalue(r, 0, 1, text, 3));
	ck_assert(PQsetvalue(r, 1, 0, two, 1) && PQsetvalue(r, 1, 1, NULL, -1));
	return (struct pg_result *)r;
}

START_TEST(an_object)
{
	struct pg_result *r = two_rows();
	_cleanup_buf_ struct buf first = {0}, second = {0};
	rows_object(r, 0, &first);
	rows_object(r, 1, &second);
	expect(&first, "{\"id\":1,\"the \\\"Name\\\"\":\"a\\tb\"}");
	expect(&second, "{\"id\":2,\"the \\\"Name\\\"\":null}");
	PQclear((PGresult *)r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rows");
	TCase *c = tcase_create("rows");
	tcase_add_loop_test(c, value, 0, (int)ELEMENTSOF(values));
	tcase_add_loop_test(c, value_cut_short, 0, (int)ELEMENTSOF(values));
	tcase_add_loop_test(c, value_without_room, 0, (int)ELEMENTSOF(values));
	tcase_add_test(c, an_object);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
