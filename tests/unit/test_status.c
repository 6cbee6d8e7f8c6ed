#include <check.h>
#include <string.h>

#include "../../src/http/http_impl.h"

static unsigned status_of(const char *sqlstate, const char *message, const char **ret_detail)
{
	_cleanup_free_ char *copy = message ? strdup(message) : NULL;
	struct answer a = {.outcome = OUTCOME_SQL_ERROR, .message = copy};
	snprintf(a.sqlstate, sizeof a.sqlstate, "%s", sqlstate);
	unsigned status = status_of_answer(&a, ret_detail);
	/* A sentence of ours is static, so it may be looked at when the answer is gone. */
	if (*ret_detail == copy)
		*ret_detail = message;
	return status;
}

static const struct {
	const char *sqlstate;
	unsigned status;
} states[] = {
    {"23505", 409}, {"23503", 409}, {"23P01", 409}, {"23502", 422}, {"23514", 422}, {"22012", 422},
    {"22P02", 422}, {"22021", 400}, {"22P05", 400}, {"21000", 422}, {"P0001", 422}, {"40001", 503},
    {"40P01", 503}, {"57014", 503}, {"55P03", 503}, {"53300", 503}, {"57P01", 503}, {"57P05", 503},
    {"08006", 503}, {"25006", 503}, {"23000", 500}, {"21001", 500}, {"42501", 500}, {"57000", 500},
    {"XX000", 500}, {"P0002", 500}, {"", 500},      {"PT200", 500}, {"PT600", 500}, {"PT40", 500},
};

START_TEST(sqlstate)
{
	const char *detail = NULL;
	ck_assert_uint_eq(status_of(states[_i].sqlstate, "secret", &detail), states[_i].status);
	ck_assert(detail && *detail);
	ck_assert_ptr_null(strstr(detail, "secret"));
}
END_TEST

START_TEST(raised_by_hand)
{
	const char *detail = NULL;
	ck_assert_uint_eq(status_of("PT404", "There is no course.", &detail), 404);
	ck_assert_str_eq(detail, "There is no course.");
	ck_assert_uint_eq(status_of("PT599", NULL, &detail), 599);
	ck_assert_str_eq(detail, "");
}
END_TEST

/* Every outcome has a status and a sentence; a new one without them would end the process. */
START_TEST(outcome)
{
	static const unsigned statuses[] = {
	    [OUTCOME_NO_ROW] = 404,       [OUTCOME_QUEUE_FULL] = 503, [OUTCOME_QUEUE_TIMEOUT] = 503,
	    [OUTCOME_POOL_TIMEOUT] = 503, [OUTCOME_DB_DOWN] = 503,    [OUTCOME_DB_LOST] = 503,
	    [OUTCOME_DEADLINE] = 504,     [OUTCOME_TOO_LARGE] = 500,  [OUTCOME_NO_MEMORY] = 503,
	    [OUTCOME_STOPPING] = 503,     [OUTCOME_UNKNOWN] = 503,
	};
	struct answer a = {.outcome = (enum outcome)_i};
	const char *detail = NULL;
	if (!statuses[_i])
		return;
	ck_assert_uint_eq(status_of_answer(&a, &detail), statuses[_i]);
	ck_assert(detail && *detail);
	ck_assert(*status_title(statuses[_i]));
}
END_TEST

START_TEST(hosts)
{
	static const char *const local[] = {"localhost",   "LOCALHOST:80", "127.0.0.1",
	                                    "127.9.9.9:1", "[::1]",        "[::1]:8080"};
	static const char *const foreign[] = {
	    "",          "l",     "localhost.", "localhost.evil.org", "127.evil.org", "127",
	    "[::1",      "[::2]", "[::1]x",     "10.0.0.1",           "0.0.0.0",      "[",
	    "127evil:1", ":80"};
	for (size_t i = 0; i < ELEMENTSOF(local); i++)
		ck_assert_msg(head_is_local((struct slice){local[i], strlen(local[i])}), "%s",
		              local[i]);
	for (size_t i = 0; i < ELEMENTSOF(foreign); i++)
		ck_assert_msg(!head_is_local((struct slice){foreign[i], strlen(foreign[i])}), "%s",
		              foreign[i]);
}
END_TEST

START_TEST(allow)
{
	char text[ALLOW_MAX];
	allow_format(1u << METHOD_GET, text);
	ck_assert_str_eq(text, "GET, HEAD, OPTIONS");
	allow_format((1u << METHOD_COUNT) - 1, text);
	ck_assert_str_eq(text, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
	allow_format(1u << METHOD_POST, text);
	ck_assert_str_eq(text, "POST, OPTIONS");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("status");
	TCase *c = tcase_create("status");
	tcase_add_loop_test(c, sqlstate, 0, (int)ELEMENTSOF(states));
	tcase_add_test(c, raised_by_hand);
	tcase_add_loop_test(c, outcome, OUTCOME_NO_ROW, OUTCOME_STOPPING + 1);
	tcase_add_test(c, hosts);
	tcase_add_test(c, allow);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
