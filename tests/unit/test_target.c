#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/target.h"

static const struct {
	const char *in, *authority, *path, *query;
} taken[] = {
    {"/", "", "/", ""},
    {"/a/b", "", "/a/b", ""},
    {"/a?b=c&d", "", "/a", "b=c&d"},
    {"/a?", "", "/a", ""},
    {"/a?b?c", "", "/a", "b?c"},
    {"/a?/b", "", "/a", "/b"},
    {"//a/b", "", "//a/b", ""},
    {"/a%2Fb%20c", "", "/a%2Fb%20c", ""},
    {"/a?b=%zz", "", "/a", "b=%zz"},
    {"/http://x/y", "", "/http://x/y", ""},
    {"http://h/a?b", "h", "/a", "b"},
    {"HTTPS://h:8443/a", "h:8443", "/a", ""},
    {"http://h", "h", "/", ""},
    {"http://h?q", "h", "/", "q"},
    {"http://[::1]:80/", "[::1]:80", "/", ""},
    {"*", "", "", ""},
};

static void expect_slice(struct slice s, const char *text)
{
	ck_assert_uint_eq(s.n, strlen(text));
	ck_assert_int_eq(memcmp(s.n ? s.p : "", text, s.n), 0);
}

START_TEST(takes)
{
	struct target t;

	ck_assert_int_eq(target_parse(taken[_i].in, strlen(taken[_i].in), &t), 0);
	expect_slice(t.authority, taken[_i].authority);
	expect_slice(t.path, taken[_i].path);
	expect_slice(t.query, taken[_i].query);
	ck_assert_int_eq(t.asterisk, strcmp(taken[_i].in, "*") == 0);
}
END_TEST

static const char *const refused[] = {
    "",          "a",       "a/b",         "**",      "*/",
    "?a",        "/a b",    "/a\t",        "/a\x7f",  "/\xc3\xa9",
    "/a#b",      "/a?b#c",  "/%",          "/a%2",    "/a%2g/b",
    "/%zz",      "http://", "http:///a",   "http:/a", "http://u@h/a",
    "ftp://h/a", "h:443",   "http://h/%2", "/a?b c",  "http://h#frag",
    "/a\r\n",    " /a",
};

START_TEST(refuses)
{
	struct target t = {.asterisk = true};

	ck_assert_msg(target_parse(refused[_i], strlen(refused[_i]), &t) == -EINVAL, "%s",
	              refused[_i]);
	ck_assert(t.asterisk); /* untouched */
}
END_TEST

START_TEST(refuses_nul)
{
	struct target t;

	ck_assert_int_eq(target_parse("/a\0b", 4, &t), -EINVAL);
}
END_TEST

START_TEST(every_prefix)
{
	for (size_t n = 0; n <= strlen(taken[_i].in); n++) {
		_cleanup_free_ char *copy = xcalloc(n ? n : 1, 1);
		struct target t = {0};

		memcpy(copy, taken[_i].in, n);
		if (target_parse(copy, n, &t) == 0 && !t.asterisk)
			ck_assert(t.path.n > 0 && t.path.p[0] == '/');
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("target");
	TCase *t = tcase_create("target");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(t, takes, 0, ELEMENTSOF(taken));
	tcase_add_loop_test(t, refuses, 0, ELEMENTSOF(refused));
	tcase_add_test(t, refuses_nul);
	tcase_add_loop_test(t, every_prefix, 0, ELEMENTSOF(taken));
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
