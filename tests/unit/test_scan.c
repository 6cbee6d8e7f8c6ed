#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/buf.h"
#include "provost/scan.h"

/* Each statement with the names that are parameters in it, joined by commas. The cases without
 * brackets were compared with psql's own scanner, which is kept in step with the server's. */
static const struct {
	const char *sql, *names;
} found[] = {
    {"SELECT 1", ""},
    {"SELECT :id", "id"},
    {"SELECT:id", "id"},
    {"SELECT :_a1,:B", "_a1,B"},
    {"SELECT :a + :b + :a", "a,b,a"},
    {"SELECT 1:id", "id"},
    {"SELECT :a:b", "a,b"},
    {":id", "id"},

    /* Casts and assignments. */
    {"SELECT x::int", ""},
    {"SELECT :x::int", "x"},
    {"SELECT x:::y", "y"},
    {"SELECT x::::y", ""},
    {"SELECT f(a := 1, b := :b, c :=:c)", "b,c"},
    {"SELECT f(a => :a)", "a"},
    {"SELECT x ::int, y:: text", ""},
    {"SELECT : id", ""},
    {"SELECT :1", ""},
    {"SELECT ::=:x", "x"},

    /* String constants. */
    {"SELECT ':a'", ""},
    {"SELECT 'it''s :a' || :b", "b"},
    {"SELECT '\\' || :a || '\\'", "a"},
    {"SELECT 'a'\n':b' || :c", "c"},
    {"SELECT 'a' ':b' || :c", "c"},
    {"SELECT '' || :a || ''''", "a"},
    {"SELECT N':a' || :b", "b"},
    {"SELECT B'0' || X'1F' || :a", "a"},
    {"SELECT U&':a\\0041' || :b", "b"},
    {"SELECT U&'\\' || :b", "b"},
    {"SELECT U&'d!0061' UESCAPE '!' || :b", "b"},
    {"SELECT U & ':a' || :b", "b"},

    /* E'' strings know the backslash, also where they go on. */
    {"SELECT E'\\':a' || :b", "b"},
    {"SELECT e'\\\\' || :b", "b"},
    {"SELECT E'a''\\':a' || :b", "b"},
    {"SELECT E'a'\n'\\':a' || :b", "b"},
    {"SELECT E'a' -- :c\n '\\':a' || :b", "b"},
    {"SELECT E'a'\r'\\':a' || :b", "b"},
    {"SELECT E'a' '\\' || :b", "b"},
    {"SELECT E'a' /* \n */ '\\' || :b", "b"},
    {"SELECT E'a' - :b", "b"},
    {"SELECT fooE'\\' || :b", "b"},
    {"SELECT _e'\\' || :b", "b"},
    {"SELECT E '\\' || :b", "b"},

    /* Dollar quotes. */
    {"SELECT $$:a$$ || :b", "b"},
    {"SELECT $t$ :a $$ :b $x$ $t$ || :c", "c"},
    {"SELECT $t$ $t1$ :a $t$ || :c", "c"},
    {"SELECT $t$:a$u$t$ || :c", "c"},
    {"SELECT $T$:a$t$:b$T$ || :c", "c"},
    {"SELECT $\xc3\xa9$:a$\xc3\xa9$ || :b", "b"},
    {"SELECT foo$$ || :b", "b"},
    {"SELECT a$b$ || :c || a$b$", "c"},
    {"SELECT $ || :a", "a"},
    {"SELECT $t || :a || $t", "a"},
    {"SELECT 1$$:a$$", ""},

    /* Identifiers. */
    {"SELECT \":a\" , :b", "b"},
    {"SELECT \"a\"\":b\", :c", "c"},
    {"SELECT U&\":a\", :c", "c"},
    {"SELECT u&\"\\\", :c", "c"},
    {"SELECT \xc3\xa9 , :c", "c"},

    /* Comments, alone and where operators would go on. */
    {"SELECT 1 -- :a\n + :b", "b"},
    {"SELECT 1 -- :a\r + :b", "b"},
    {"SELECT 1 /* :a */ + :b", "b"},
    {"SELECT 1 /* /* :a */ :b */ + :c", "c"},
    {"SELECT 1 /*/ :a */ + :c", "c"},
    {"SELECT 1 /**/ + :c /***/", "c"},
    {"SELECT 1 /* ' */ + :c", "c"},
    {"SELECT 1 +-- :a\n :b", "b"},
    {"SELECT 1 +/* :a */ :b", "b"},
    {"SELECT 1 */* :a */ :b", "b"},
    {"SELECT 1 @-/* :a */ :b", "b"},
    {"SELECT 1 - -:a", "a"},
    {"SELECT 1 / :a * :b", "a,b"},

    /* Operators end before a colon. */
    {"SELECT a=:a, b>:b, c<=:c, d@>:d", "a,b,c,d"},
    {"SELECT a ? 'k' AND b ?| :b AND c ?& :c", "b,c"},
    {"SELECT a->>:k, b#>>:p, a ~* :re", "k,p,re"},

    /* Numbers. */
    {"SELECT 1.5e+10, .5, 1_000, 0x1F, :a", "a"},
    {"SELECT 1.:a", "a"},
    {"SELECT a[1..2], :a", "a"},

    /* Slices. */
    {"SELECT a[1:2]", ""},
    {"SELECT a[lo:hi]", ""},
    {"SELECT a[lo :hi]", ""},
    {"SELECT a[:lo]", "lo"},
    {"SELECT a[:lo: :hi]", "lo,hi"},
    {"SELECT a[:lo::int : :hi]", "lo,hi"},
    {"SELECT a[:lo : :hi::int]", "lo,hi"},
    {"SELECT a[f(:x):b]", "x"},
    {"SELECT a[f(:x, y, :z):b]", "x,z"},
    {"SELECT a[b[1]:c]", ""},
    {"SELECT a[\"b\":c]", ""},
    {"SELECT a[1 + :n]", "n"},
    {"SELECT ARRAY[:a, :b]", "a,b"},
    {"SELECT ARRAY[1,:a]", "a"},
    {"SELECT ARRAY[CASE WHEN :a THEN :b ELSE :c END]", "a,b,c"},
    {"SELECT ARRAY[x AND :a, y OR NOT :b, z IN (:c), w LIKE :d]", "a,b,c,d"},
    {"SELECT ARRAY[t AT TIME ZONE :tz]", "tz"},
    {"SELECT a[zone:b]", ""},
    {"SELECT a[t.from:b]", ""},
    {"SELECT ARRAY[(SELECT x FROM t WHERE y :a LIMIT :n)]", "a,n"},
    {"SELECT (a :b)", "b"},

    /* What ends a statement. */
    {"SELECT :a;", "a"},
    {"SELECT :a ; -- end\n /* really */ ", "a"},
    {"SELECT ';' || :a", "a"},
};

START_TEST(finds_parameters)
{
	const char *sql = found[_i].sql, *why;
	_cleanup_buf_ struct buf names = {0};
	struct scan_result r = {0};
	size_t pos;
	int err = scan_sql(sql, strlen(sql), &r, &pos, &why);

	ck_assert_msg(err == 0, "%s: %s", sql, err ? why : "");
	for (size_t i = 0; i < r.params; i++) {
		ck_assert_int_eq(sql[r.param[i].start], ':');
		if (i > 0)
			buf_addc(&names, ',');
		buf_add(&names, sql + r.param[i].start + 1, r.param[i].end - r.param[i].start - 1);
	}
	buf_addc(&names, '\0');
	ck_assert_msg(strcmp(names.data, found[_i].names) == 0, "%s: found %s, not %s", sql,
	              names.data, found[_i].names);
	scan_result_done(&r);
}
END_TEST

static const struct {
	const char *sql;
	size_t pos;
	const char *why;
} refused[] = {
    {"", 0, "no statement"},
    {" \n ", 0, "no statement"},
    {"-- only\n/* comments */", 0, "no statement"},
    {";", 0, "no statement"},
    {"SELECT 'a", 7, "string constant is not closed"},
    {"SELECT 'a''", 7, "string constant is not closed"},
    {"SELECT E'a\\'", 7, "string constant is not closed"},
    {"SELECT E'a\\", 7, "string constant is not closed"},
    {"SELECT 'a'\n'b", 7, "string constant is not closed"},
    {"SELECT \"a", 7, "quoted identifier is not closed"},
    {"SELECT U&\"a", 7, "quoted identifier is not closed"},
    {"SELECT $$a", 7, "dollar-quoted string is not closed"},
    {"SELECT $t$a$T$", 7, "dollar-quoted string is not closed"},
    {"SELECT 1 /* a", 9, "comment is not closed"},
    {"SELECT 1 /* /* a */", 9, "comment is not closed"},
    {"SELECT 1 /*/", 9, "comment is not closed"},
    {"SELECT $1", 7, "write :name, not $1"},
    {"SELECT :a, $2", 11, "write :name, not $1"},
    {"SELECT 1; SELECT 2", 10, "second statement"},
    {"SELECT 1;;", 9, "second statement"},
    {"SELECT :a$", 7, "letters a-z, digits and _ only"},
    {"SELECT :na\xc3\xafve", 7, "letters a-z, digits and _ only"},
};

START_TEST(refuses)
{
	const char *sql = refused[_i].sql, *why = NULL;
	struct scan_result r = {0};
	size_t pos = 0;

	ck_assert_msg(scan_sql(sql, strlen(sql), &r, &pos, &why) == -EINVAL, "%s", sql);
	ck_assert_msg(strstr(why, refused[_i].why), "%s: %s", sql, why);
	ck_assert_msg(pos == refused[_i].pos, "%s: at %zu", sql, pos);
	ck_assert_ptr_null(r.param);
}
END_TEST

START_TEST(refuses_nul)
{
	const char *why;
	struct scan_result r;
	size_t pos;

	ck_assert_int_eq(scan_sql("SELECT '\0'", 10, &r, &pos, &why), -EINVAL);
	ck_assert_uint_eq(pos, 8);
}
END_TEST

static const struct {
	const char *sql;
	size_t end;
} ends[] = {
    {"SELECT 1", 8},
    {"SELECT 1 ", 8},
    {"SELECT 1;", 8},
    {"SELECT 1 ; ", 8},
    {"SELECT 1 -- a\n/* b */;", 8},
    {"SELECT ';' ; -- ;", 10},
};

START_TEST(leaves_the_tail_out)
{
	const char *why;
	struct scan_result r = {0};
	size_t pos;

	ck_assert_int_eq(scan_sql(ends[_i].sql, strlen(ends[_i].sql), &r, &pos, &why), 0);
	ck_assert_uint_eq(r.end, ends[_i].end);
	scan_result_done(&r);
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char sql[SCAN_NESTING_MAX + 1];
	const char *why;
	struct scan_result r = {0};
	size_t pos;

	memset(sql, '(', sizeof(sql));
	ck_assert_int_eq(scan_sql(sql, SCAN_NESTING_MAX, &r, &pos, &why), 0);
	scan_result_done(&r);
	ck_assert_int_eq(scan_sql(sql, SCAN_NESTING_MAX + 1, &r, &pos, &why), -EINVAL);
	ck_assert_uint_eq(pos, SCAN_NESTING_MAX);
}
END_TEST

/* A copy of exactly the prefix, so that a sanitizer sees a byte read behind it. */
static void scan_copy(const char *sql, size_t n)
{
	_cleanup_free_ char *copy = xcalloc(n ? n : 1, 1);
	const char *why;
	struct scan_result r = {0};
	size_t pos;

	memcpy(copy, sql, n);
	if (scan_sql(copy, n, &r, &pos, &why) < 0)
		ck_assert_uint_le(pos, n);
	else
		ck_assert_uint_le(r.end, n);
	scan_result_done(&r);
}

START_TEST(every_prefix)
{
	for (size_t n = 0; n <= strlen(found[_i].sql); n++)
		scan_copy(found[_i].sql, n);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("scan");
	TCase *t = tcase_create("scan");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(t, finds_parameters, 0, ELEMENTSOF(found));
	tcase_add_loop_test(t, refuses, 0, ELEMENTSOF(refused));
	tcase_add_test(t, refuses_nul);
	tcase_add_loop_test(t, leaves_the_tail_out, 0, ELEMENTSOF(ends));
	tcase_add_test(t, nesting_is_bounded);
	tcase_add_loop_test(t, every_prefix, 0, ELEMENTSOF(found));
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
