#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/change.h"

#define TOKEN "0123456789abcdef0123456789abcdef"

static struct change change;

static void teardown(void)
{
	change_done(&change);
}

static int parse(const char *payload)
{
	change_done(&change);
	return change_parse(payload, &change);
}

static void check_refused(const char *payload)
{
	change = (struct change){.number = 42};
	ck_assert_msg(change_parse(payload, &change) == -EINVAL, "accepted: %s", payload);
	ck_assert_msg(change.number == 42 && !change.table, "touched: %s", payload);
}

static void check_column(size_t i, const char *name, const char *first, size_t n)
{
	ck_assert_uint_lt(i, change.columns);
	ck_assert_str_eq(change.column[i].name, name);
	ck_assert_uint_eq(change.column[i].values, n);
	if (n > 0)
		ck_assert_str_eq(change.column[i].value[0], first);
}

START_TEST(a_change_of_rows)
{
	ck_assert_int_eq(parse("{\"table\":\"course\",\"op\":\"UPDATE\",\"key\":\"id\",\"values\":"
	                       "{\"id\":[\"a\"],\"institutionId\":[\"x\",\"y\"],\"none\":[]}}"),
	                 0);
	ck_assert_int_eq(change.kind, CHANGE_TABLE);
	ck_assert_str_eq(change.table, "course");
	ck_assert_str_eq(change.op, "UPDATE");
	ck_assert_ptr_eq(change.key, change.column[0].name);
	ck_assert(change.known);
	ck_assert_uint_eq(change.columns, 3);
	check_column(0, "id", "a", 1);
	check_column(1, "institutionId", "x", 2);
	ck_assert_str_eq(change.column[1].value[1], "y");
	check_column(2, "none", NULL, 0);
}
END_TEST

START_TEST(a_change_of_unknown_rows)
{
	ck_assert_int_eq(parse("{\"table\":\"shop.course\",\"op\":\"TRUNCATE\"}"), 0);
	ck_assert_str_eq(change.table, "shop.course");
	ck_assert_str_eq(change.op, "TRUNCATE");
	ck_assert(!change.known);
	ck_assert_ptr_null(change.key);
	ck_assert_uint_eq(change.columns, 0);
}
END_TEST

/* As PostgreSQL's json functions write them: blanks after colons and commas, escapes. */
START_TEST(what_postgresql_writes)
{
	ck_assert_int_eq(parse("{\"table\" : \"t\", \"op\" : \"INSERT\", \"values\" : "
	                       "{\"a\" : [\"\\\"\\\\\\n\\u0001\xc3\xa9\"]}}"),
	                 0);
	check_column(0, "a", "\"\\\n\x01\xc3\xa9", 1);
}
END_TEST

START_TEST(members_of_a_later_version_are_passed_over)
{
	ck_assert_int_eq(parse("{\"v\":2,\"table\":\"t\",\"op\":\"DELETE\",\"more\":{\"x\":[1]}}"),
	                 0);
	ck_assert_str_eq(change.op, "DELETE");
}
END_TEST

START_TEST(words)
{
	ck_assert_int_eq(parse("sync " TOKEN), 0);
	ck_assert_int_eq(change.kind, CHANGE_SYNC);
	ck_assert_str_eq(change.token, TOKEN);
	ck_assert_int_eq(parse("beat " TOKEN " 1234567890123456789"), 0);
	ck_assert_int_eq(change.kind, CHANGE_BEAT);
	ck_assert_str_eq(change.token, TOKEN);
	ck_assert_uint_eq(change.number, 1234567890123456789u);
	ck_assert_int_eq(parse("beat " TOKEN " 0"), 0);
	ck_assert_int_eq(parse("epoch"), 0);
	ck_assert_int_eq(change.kind, CHANGE_EPOCH);
}
END_TEST

/* Nothing of it is looked at: it need not be JSON. */
START_TEST(what_claims_to_be_published)
{
	ck_assert_int_eq(parse("event " TOKEN TOKEN " {\"id\":1}"), 0);
	ck_assert_int_eq(change.kind, CHANGE_EVENT);
	ck_assert(!strncmp(change.digest, TOKEN TOKEN " ", CHANGE_DIGEST_LEN + 1));
	ck_assert_str_eq(change.event, "{\"id\":1}");
	ck_assert_int_eq(parse("event " TOKEN TOKEN " {"), 0);
}
END_TEST

static const char *const garbage[] = {
    "",
    " ",
    "epoch ",
    "epochs",
    "EPOCH",
    "sync",
    "sync ",
    "sync " TOKEN "0",
    "sync " TOKEN " ",
    "sync 0123456789ABCDEF0123456789abcdef",
    "beat " TOKEN,
    "beat " TOKEN " ",
    "beat " TOKEN " -1",
    "beat " TOKEN " 01",
    "beat " TOKEN " 1 ",
    "beat " TOKEN " 12345678901234567890",
    "event",
    "event ",
    "event " TOKEN TOKEN,
    "event " TOKEN TOKEN " ",
    "event " TOKEN TOKEN " x",
    "event " TOKEN TOKEN "  {}",
    "event " TOKEN TOKEN "0 {}",
    "event " TOKEN " {}",
    "event 0123456789ABCDEF0123456789abcdef" TOKEN " {}",
    "event " TOKEN TOKEN " {\xff}",
    "{}",
    "[]",
    "{\"table\":\"t\"}",
    "{\"op\":\"INSERT\"}",
    "{\"table\":\"\",\"op\":\"INSERT\"}",
    "{\"table\":1,\"op\":\"INSERT\"}",
    "{\"table\":null,\"op\":\"INSERT\"}",
    "{\"table\":\"a\\u0000b\",\"op\":\"INSERT\"}",
    "{\"table\":\"t\",\"op\":\"insert\"}",
    "{\"table\":\"t\",\"op\":\"INSERT\"}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",}",
    "{\"table\":\"t\xff\",\"op\":\"INSERT\"}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\xff\":[\"x\"]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":null}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":[]}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":\"x\"}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":null}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":[\"x\",null]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":[1]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":[\"x\\u0000\"]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"key\":\"b\",\"values\":{\"a\":[\"x\"]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"values\":{\"a\":[[\"x\"]]}}",
    "{\"table\":\"t\",\"op\":\"INSERT\",\"more\":[[[[[[1]]]]]]}",
};

START_TEST(anything_else_is_refused)
{
	check_refused(garbage[_i]);
}
END_TEST

START_TEST(every_prefix_is_refused)
{
	static const char *const whole[] = {
	    "epoch",
	    "sync " TOKEN,
	    "beat " TOKEN " 7",
	    "{\"table\":\"t\",\"op\":\"UPDATE\",\"key\":\"a\",\"values\":{\"a\":[\"x\",\"y\"],"
	    "\"b\":[]}}",
	};
	for (size_t i = 0; i < ELEMENTSOF(whole); i++) {
		for (size_t n = 0; n < strlen(whole[i]); n++) {
			_cleanup_free_ char *prefix = xstrndup(whole[i], n);
			check_refused(prefix);
		}
		ck_assert_int_eq(parse(whole[i]), 0);
	}
}
END_TEST

START_TEST(longer_than_postgresql_sends_is_refused)
{
	char payload[CHANGE_PAYLOAD_MAX + 2];
	static const char head[] = "{\"table\":\"t\",\"op\":\"INSERT\"}";

	memset(payload, ' ', sizeof payload);
	memcpy(payload, head, strlen(head));
	payload[CHANGE_PAYLOAD_MAX] = '\0';
	ck_assert_int_eq(parse(payload), 0);
	change_done(&change);
	payload[CHANGE_PAYLOAD_MAX] = ' ';
	payload[CHANGE_PAYLOAD_MAX + 1] = '\0';
	check_refused(payload);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("change");
	TCase *c = tcase_create("change");
	tcase_add_checked_fixture(c, NULL, teardown);
	tcase_add_test(c, a_change_of_rows);
	tcase_add_test(c, a_change_of_unknown_rows);
	tcase_add_test(c, what_postgresql_writes);
	tcase_add_test(c, members_of_a_later_version_are_passed_over);
	tcase_add_test(c, words);
	tcase_add_test(c, what_claims_to_be_published);
	tcase_add_loop_test(c, anything_else_is_refused, 0, ELEMENTSOF(garbage));
	tcase_add_test(c, every_prefix_is_refused);
	tcase_add_test(c, longer_than_postgresql_sends_is_refused);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
