#include <check.h>
#include <string.h>

#include "../../src/http/accept.h"

enum {
	GZIP = 1u << CODING_GZIP,
	BR = 1u << CODING_BR,
	IDENTITY = 1u << CODING_IDENTITY,
	BOTH = GZIP | BR,
};

#define HASH "0123456789abcdef0123456789abcdef"

/* Lines of one field, separated by a newline; NULL: the field is missing. */
static const char *take_line(const char **lines, size_t *ret_n)
{
	const char *line = *lines;

	if (!line)
		return NULL;
	*ret_n = strcspn(line, "\n");
	*lines = line[*ret_n] ? line + *ret_n + 1 : NULL;
	return line;
}

/* From memory of its own, so that a sanitizer sees a read behind the end. */
static void add_line(struct accept *a, const char *line, size_t n)
{
	_cleanup_free_ char *copy = xstrndup(line, n);
	_cleanup_free_ char *exact = xcalloc(n ? n : 1, 1);

	memcpy(exact, copy, n);
	accept_add(a, exact, n);
}

static struct accept accept_of(const char *lines)
{
	struct accept a = {0};
	const char *line;
	size_t n;

	while ((line = take_line(&lines, &n)))
		add_line(&a, line, n);
	return a;
}

/* What is chosen with both there, with gzip alone, with br alone. */
static const struct {
	const char *lines;
	unsigned both, gzip, br;
} choices[] = {
    {NULL, CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip, deflate, br", CODING_BR, CODING_GZIP, CODING_BR},
    {"gzip, deflate, br, zstd", CODING_BR, CODING_GZIP, CODING_BR},
    {"gzip", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"x-gzip", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"br", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"GZip", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"deflate", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"identity", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"*", CODING_BR, CODING_GZIP, CODING_BR},
    {"*;q=0", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"*;q=0, gzip", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"*, gzip;q=0", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"*;q=0.5, identity", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"*;q=0.5, gzip", CODING_GZIP, CODING_GZIP, CODING_BR},
    {"*, gzip;q=0.5", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"identity;q=0", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"identity;q=0, br", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"gzip;q=0", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=0, br", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"gzip;q=0.5", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"gzip;q=0.001", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"gzip;q=0.5, identity", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=0.5, identity;q=0.5", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"gzip;q=0.5, identity;q=0.499", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"gzip;q=1.0, br;q=0.9", CODING_GZIP, CODING_GZIP, CODING_BR},
    {"gzip;q=0.899, br;q=0.9", CODING_BR, CODING_GZIP, CODING_BR},
    {"gzip;q=1.000, br;q=1.", CODING_BR, CODING_GZIP, CODING_BR},
    {"gzip;q=0., br;q=0.000", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip ; q=0.5 ,\tbr\t;\tQ=0.4", CODING_GZIP, CODING_GZIP, CODING_BR},
    {",, gzip ,,", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"compress;q=0.5, gzip;q=1.0", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
    {"gzip;q=1.0, identity; q=0.5, *;q=0", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},

    /* Malformed elements, and others that stand beside them. */
    {"gzip;q=2", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=1.001", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=0.1234", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=-1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=.5", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q =1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q= 1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;x=1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=1;q=1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip br", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip/1", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"\"gzip\"", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzi", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzipp", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"**", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip;q=x, br", CODING_BR, CODING_IDENTITY, CODING_BR},
    {"gzip;q=0.5x, br;q=0.1", CODING_BR, CODING_IDENTITY, CODING_BR},

    /* Named twice: the lower stands, in any order, over lines too. */
    {"gzip;q=0, gzip", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip, x-gzip;q=0", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"gzip\nbr", CODING_BR, CODING_GZIP, CODING_BR},
    {"gzip;q=0.5\nidentity", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"*\ngzip;q=0\nbr;q=0", CODING_IDENTITY, CODING_IDENTITY, CODING_IDENTITY},
    {"\n\ngzip", CODING_GZIP, CODING_GZIP, CODING_IDENTITY},
};

START_TEST(chooses)
{
	struct accept a = accept_of(choices[_i].lines);
	const char *shown = choices[_i].lines ? choices[_i].lines : "none";

	ck_assert_msg(accept_choose(&a, BOTH) == choices[_i].both, "both: %s", shown);
	ck_assert_msg(accept_choose(&a, GZIP) == choices[_i].gzip, "gzip: %s", shown);
	ck_assert_msg(accept_choose(&a, BR) == choices[_i].br, "br: %s", shown);
	ck_assert_msg(accept_choose(&a, 0) == CODING_IDENTITY, "none: %s", shown);
}
END_TEST

/* One line, or each of its elements on a line of its own. */
START_TEST(lines_are_one_list)
{
	_cleanup_free_ char *split = choices[_i].lines ? xstrdup(choices[_i].lines) : NULL;
	struct accept a, b;

	for (char *p = split; p && (p = strchr(p, ','));)
		*p = '\n';
	a = accept_of(choices[_i].lines);
	b = accept_of(split);
	ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

/* Wherever it is cut, nothing is read behind the end and weights stay in their range. */
START_TEST(every_prefix)
{
	const char *s = choices[_i].lines ? choices[_i].lines : "";
	size_t n = strcspn(s, "\n");

	for (size_t i = 0; i <= n; i++) {
		struct accept a = {0};

		add_line(&a, s, i);
		for (size_t c = 0; c < ELEMENTSOF(a.coding); c++)
			ck_assert_uint_le(a.coding[c], 1001);
		ck_assert_uint_le(a.any, 1001);
	}
}
END_TEST

static const struct {
	const char *lines;
	unsigned makeable, available, wanted;
} wishes[] = {
    {"gzip, deflate, br", BOTH, 0, CODING_BR},
    {"gzip, deflate, br", BOTH, GZIP, CODING_BR},
    {"gzip, deflate, br", BOTH, BR, CODING_IDENTITY},
    {"gzip, deflate, br", GZIP, 0, CODING_GZIP},
    {"gzip, deflate, br", GZIP, GZIP, CODING_IDENTITY},
    {"gzip, deflate, br", GZIP, BR, CODING_IDENTITY},
    {"gzip, deflate, br", 0, 0, CODING_IDENTITY},
    {"gzip", BOTH, 0, CODING_GZIP},
    {"gzip", BOTH, BR, CODING_GZIP},
    {"gzip, br;q=0.5", BOTH, BR, CODING_GZIP},
    {"gzip, br;q=0.5", BR, GZIP, CODING_IDENTITY},
    {"identity, gzip;q=0.5", BOTH, 0, CODING_IDENTITY},
    {NULL, BOTH, 0, CODING_IDENTITY},
};

START_TEST(wants)
{
	struct accept a = accept_of(wishes[_i].lines);

	ck_assert_uint_eq(accept_wanted(&a, wishes[_i].makeable, wishes[_i].available),
	                  wishes[_i].wanted);
}
END_TEST

/* ---- If-None-Match ------------------------------------------------------------------- */

static const struct {
	const char *lines;
	unsigned tags;
} matches[] = {
    {NULL, 0},
    {"", 0},
    {"\"" HASH "\"", IDENTITY},
    {"\"" HASH "-gzip\"", GZIP},
    {"\"" HASH "-br\"", BR},
    {"W/\"" HASH "\"", IDENTITY},
    {"W/\"" HASH "-br\"", BR},
    {"\"" HASH "\", \"" HASH "-gzip\"", IDENTITY | GZIP},
    {"\"x\",\"" HASH "-gzip\",W/\"y\"", GZIP},
    {"\"a,b\", \"" HASH "\"", IDENTITY},
    {"\"a,\", \"" HASH "\"", IDENTITY},
    {"\"\", \"" HASH "\"", IDENTITY},
    {"\"\xc3\xa9\\\", \"" HASH "\"", IDENTITY},
    {"\t\"" HASH "\" ,\t", IDENTITY},
    {", ,\"" HASH "\",,", IDENTITY},
    {"\"x\"\n\"" HASH "-br\"", BR},
    {"\"" HASH "\"\n\"" HASH "-br\"", IDENTITY | BR},
    {"*", CODING_ALL},
    {" * ", CODING_ALL},
    {"*, *", CODING_ALL},
    {"\n*", CODING_ALL},

    {"\"" HASH "-zstd\"", 0},
    {"\"" HASH "-\"", 0},
    {"\"" HASH "-gzi\"", 0},
    {"\"" HASH "-gzipp\"", 0},
    {"\"" HASH "-GZIP\"", 0},
    {"\"" HASH "0\"", 0},
    {"\"0123456789abcdef0123456789abcde\"", 0},
    {"\"0123456789ABCDEF0123456789ABCDEF\"", 0},
    {"\"1123456789abcdef0123456789abcdef\"", 0},
    {"\"x\"", 0},
    {"\"*\"", 0},
    {"\"a,\"" HASH "\"\"", 0},
    {"\"a, \\\"" HASH "\\\"\"", 0},

    /* Malformed anywhere, no match at all. */
    {HASH, 0},
    {"'" HASH "'", 0},
    {"\"" HASH, 0},
    {HASH "\"", 0},
    {"\" " HASH "\"", 0},
    {"\"" HASH " \"", 0},
    {"w/\"" HASH "\"", 0},
    {"W\"" HASH "\"", 0},
    {"W/ \"" HASH "\"", 0},
    {"W/" HASH, 0},
    {"W/", 0},
    {"W", 0},
    {"\"" HASH "\"x", 0},
    {"\"" HASH "\" \"x\"", 0},
    {"\"" HASH "\", x", 0},
    {"x, \"" HASH "\"", 0},
    {"\"" HASH "\";q=1", 0},
    {"\"" HASH "\"\nx", 0},
    {"x\n\"" HASH "\"", 0},
    {"**", 0},
    {"*, \"" HASH "\"", 0},
    {"\"" HASH "\", *", 0},
    {"\"x\"\n*", 0},
    {"W/*", 0},
    {"\"a\x7f\", \"" HASH "\"", 0},
};

static void add_tags(struct none_match *m, const char *line, size_t n)
{
	_cleanup_free_ char *exact = xcalloc(n ? n : 1, 1);

	memcpy(exact, line, n);
	none_match_add(m, HASH, exact, n);
}

START_TEST(matches_tags)
{
	const char *lines = matches[_i].lines, *line;
	struct none_match m = {0};
	size_t n;

	while ((line = take_line(&lines, &n)))
		add_tags(&m, line, n);
	ck_assert_msg(none_match_tags(&m) == matches[_i].tags, "`%s`: %u", matches[_i].lines,
	              none_match_tags(&m));
}
END_TEST

/* A list cut anywhere names only what it names whole. */
START_TEST(every_prefix_of_tags)
{
	const char *s = matches[_i].lines ? matches[_i].lines : "";
	size_t n = strcspn(s, "\n");
	struct none_match whole = {0};

	add_tags(&whole, s, n);
	for (size_t i = 0; i <= n; i++) {
		struct none_match m = {0};

		add_tags(&m, s, i);
		ck_assert_uint_eq(m.tags & ~whole.tags, 0);
		ck_assert(!m.any || whole.any);
	}
}
END_TEST

START_TEST(tags_match_themselves)
{
	struct none_match m = {0};
	char tag[ETAG_MAX];

	etag_format(HASH, (unsigned)_i, tag);
	ck_assert_uint_lt(strlen(tag), ETAG_MAX);
	none_match_add(&m, HASH, tag, strlen(tag));
	ck_assert_uint_eq(none_match_tags(&m), 1u << _i);
	if (_i != CODING_IDENTITY)
		ck_assert_ptr_nonnull(strstr(tag, coding_name((unsigned)_i)));
}
END_TEST

START_TEST(picks_the_tag)
{
	ck_assert_uint_eq(none_match_pick(CODING_ALL, CODING_BR), CODING_BR);
	ck_assert_uint_eq(none_match_pick(CODING_ALL, CODING_IDENTITY), CODING_IDENTITY);
	ck_assert_uint_eq(none_match_pick(IDENTITY, CODING_BR), CODING_IDENTITY);
	ck_assert_uint_eq(none_match_pick(BR | IDENTITY, CODING_IDENTITY), CODING_IDENTITY);
	ck_assert_uint_eq(none_match_pick(GZIP, CODING_IDENTITY), CODING_GZIP);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("accept");
	TCase *t = tcase_create("accept");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, chooses, 0, ELEMENTSOF(choices));
	tcase_add_loop_test(t, lines_are_one_list, 0, ELEMENTSOF(choices));
	tcase_add_loop_test(t, every_prefix, 0, ELEMENTSOF(choices));
	tcase_add_loop_test(t, wants, 0, ELEMENTSOF(wishes));
	tcase_add_loop_test(t, matches_tags, 0, ELEMENTSOF(matches));
	tcase_add_loop_test(t, every_prefix_of_tags, 0, ELEMENTSOF(matches));
	tcase_add_loop_test(t, tags_match_themselves, 0, CODING_IDENTITY + 1);
	tcase_add_test(t, picks_the_tag);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
