#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "provost/base.h"
#include "provost/buf.h"
#include "provost/errors.h"
#include "provost/strlist.h"
#include "provost/units.h"

/* ---- base ------------------------------------------------------------------------------------ */

START_TEST(assertion_that_holds_does_nothing)
{
	ALWAYS(1 + 1 == 2);
}
END_TEST

START_TEST(assertion_that_fails_aborts)
{
	ALWAYS(1 + 1 == 3);
}
END_TEST

START_TEST(magic_of_null_aborts)
{
	struct {
		unsigned magic;
	} *p = NULL;

	CHECK_MAGIC(p, 1u);
}
END_TEST

START_TEST(xcalloc_of_nothing_is_something)
{
	_cleanup_free_ char *p = xcalloc(0, 0);

	ck_assert_ptr_nonnull(p);
}
END_TEST

START_TEST(xcalloc_that_overflows_exits)
{
	free(xcalloc(SIZE_MAX / 2, 3));
}
END_TEST

START_TEST(xstrndup_stops_at_nul_and_at_n)
{
	_cleanup_free_ char *a = xstrndup("abc", 2), *b = xstrndup("abc", 9);

	ck_assert_str_eq(a, "ab");
	ck_assert_str_eq(b, "abc");
}
END_TEST

START_TEST(clock_does_not_go_back)
{
	uint64_t a = clock_us(), b = clock_us();

	ck_assert(b >= a);
	ck_assert(clock_ms() >= a / 1000);
}
END_TEST

START_TEST(jitter_stays_below_its_bound)
{
	bool seen[7] = {false};

	ck_assert(jitter(0) == 0);
	ck_assert(jitter(1) == 0);
	for (int i = 0; i < 10000; i++) {
		uint64_t v = jitter(7);

		ck_assert(v < 7);
		seen[v] = true;
	}
	for (size_t i = 0; i < ELEMENTSOF(seen); i++)
		ck_assert(seen[i]);
}
END_TEST

static void *draw(void *arg)
{
	*(uint64_t *)arg = jitter(UINT64_MAX);
	return NULL;
}

START_TEST(jitter_differs_between_threads)
{
	uint64_t v[4];
	pthread_t t[4];

	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, draw, &v[i]), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	ck_assert(v[0] != v[1] || v[1] != v[2] || v[2] != v[3]);
}
END_TEST

/* Lengths are the strings' own where n is 0. */
static const struct {
	const char *s;
	size_t n;
	ssize_t want;
} utf8[] = {
    {"", 0, 0},
    {"abc", 0, 3},
    {"exactly8", 0, 8},
    {"longer than a word", 0, 18},
    {"a\0b", 3, 3},
    {"\0", 1, 1},
    {"Zürich", 0, 6},
    {"12345678ü", 0, 9},
    {"ü12345678", 0, 9},
    {"€", 0, 1},
    {"\xf0\x9f\x98\x80", 0, 1},
    {"\xc2\x80", 0, 1},
    {"\xdf\xbf", 0, 1},
    {"\xe0\xa0\x80", 0, 1},
    {"\xed\x9f\xbf", 0, 1},
    {"\xee\x80\x80", 0, 1},
    {"\xef\xbf\xbf", 0, 1},
    {"\xf0\x90\x80\x80", 0, 1},
    {"\xf4\x8f\xbf\xbf", 0, 1},
    /* overlong */
    {"\xc0\x80", 0, -EILSEQ},
    {"\xc1\xbf", 0, -EILSEQ},
    {"\xe0\x9f\xbf", 0, -EILSEQ},
    {"\xf0\x8f\xbf\xbf", 0, -EILSEQ},
    /* surrogates */
    {"\xed\xa0\x80", 0, -EILSEQ},
    {"\xed\xbf\xbf", 0, -EILSEQ},
    /* above U+10FFFF */
    {"\xf4\x90\x80\x80", 0, -EILSEQ},
    {"\xf5\x80\x80\x80", 0, -EILSEQ},
    {"\xff", 0, -EILSEQ},
    /* alone, or short */
    {"\x80", 0, -EILSEQ},
    {"12345678\xbf", 0, -EILSEQ},
    {"\xc3", 0, -EILSEQ},
    {"\xc3(", 0, -EILSEQ},
    {"\xe2\x82", 0, -EILSEQ},
    {"\xe2\x28\xa1", 0, -EILSEQ},
    {"\xe2\x82\x28", 0, -EILSEQ},
    {"\xf0\x9f\x98", 0, -EILSEQ},
    {"\xf0\x9f\x98\x28", 0, -EILSEQ},
};

START_TEST(utf8_is_counted_or_refused)
{
	size_t n = utf8[_i].n ? utf8[_i].n : strlen(utf8[_i].s);
	_cleanup_free_ char *exact = malloc(n + 1);

	/* In memory of its own, so that the sanitizer sees a read past the end. */
	memcpy(exact, utf8[_i].s, n);
	exact = realloc(exact, n ? n : 1);
	ck_assert_int_eq(utf8_length(exact, n), utf8[_i].want);
}
END_TEST

START_TEST(utf8_prefix_of_a_character_is_refused)
{
	const char *s = "a€b\xf0\x9f\x98\x80";
	static const bool whole[] = {true, true,  false, false, true,
	                             true, false, false, false, true};

	ck_assert_uint_eq(strlen(s) + 1, ELEMENTSOF(whole));
	for (size_t n = 0; n < ELEMENTSOF(whole); n++)
		ck_assert_int_eq(utf8_length(s, n) >= 0, whole[n]);
}
END_TEST

/* ---- buf ------------------------------------------------------------------------------------- */

START_TEST(buf_grows_and_is_taken)
{
	_cleanup_buf_ struct buf b = {0};
	_cleanup_free_ char *s = NULL;
	size_t n = 0;

	for (int i = 0; i < 1000; i++)
		buf_adds(&b, "0123456789");
	ck_assert(!b.failed);
	ck_assert_uint_eq(b.len, 10000);
	s = buf_take(&b, &n);
	ck_assert_uint_eq(n, 10000);
	ck_assert_uint_eq(strlen(s), 10000);
	ck_assert_ptr_null(b.data);
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

START_TEST(buf_taken_empty_is_an_empty_string)
{
	struct buf b = {0};
	size_t n = 1;
	_cleanup_free_ char *s = buf_take(&b, &n);

	ck_assert_str_eq(s, "");
	ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(buf_takes_exactly_its_maximum)
{
	_cleanup_buf_ struct buf b = {.max = 300};

	for (int i = 0; i < 300; i++)
		buf_addc(&b, 'x');
	ck_assert(!b.failed);
	ck_assert_uint_eq(b.len, 300);
	buf_addc(&b, 'y');
	ck_assert(b.failed);
	ck_assert_uint_eq(b.len, 300);
}
END_TEST

START_TEST(buf_that_failed_stays_failed)
{
	struct buf b = {.max = 4};

	buf_adds(&b, "12345");
	ck_assert(b.failed);
	buf_adds(&b, "1");
	ck_assert_uint_eq(b.len, 0);
	ck_assert_ptr_null(buf_reserve(&b, 0));
	ck_assert_ptr_null(buf_take(&b, NULL));
	ck_assert(!b.failed);
	buf_done(&b);
}
END_TEST

START_TEST(buf_refuses_sizes_that_overflow)
{
	_cleanup_buf_ struct buf b = {0};

	buf_adds(&b, "x");
	ck_assert_ptr_null(buf_reserve(&b, SIZE_MAX));
	ck_assert(b.failed);
}
END_TEST

START_TEST(buf_reserves_without_adding)
{
	_cleanup_buf_ struct buf b = {0};
	char *p = buf_reserve(&b, 1000);

	memset(p, 'x', 1000);
	ck_assert_uint_eq(b.len, 0);
	b.len = 1000;
	buf_addc(&b, '!');
	ck_assert_mem_eq(b.data + 999, "x!", 2);
}
END_TEST

START_TEST(buf_formats_short_and_long)
{
	_cleanup_buf_ struct buf b = {0};

	buf_addf(&b, "%d-%s", 42, "abc");
	ck_assert_mem_eq(b.data, "42-abc", 6);
	buf_addf(&b, "%01000d", 7);
	ck_assert_uint_eq(b.len, 1006);
	ck_assert_mem_eq(b.data + 1003, "007", 3);
}
END_TEST

static const int64_t integers[] = {0,  1,         -1,         9,         10,        -10,
                                   99, INT32_MIN, 1000000000, INT64_MAX, INT64_MIN, INT64_MIN + 1};

START_TEST(integers_are_written_as_printf_does)
{
	_cleanup_buf_ struct buf b = {0};
	char want[32], text[INTEGER_TEXT_MAX];
	int n = snprintf(want, sizeof(want), "%" PRId64, integers[_i]);

	ck_assert_ptr_eq(integer_text(text, integers[_i]), text + n);
	ck_assert_str_eq(text, want);
	buf_addc(&b, '=');
	buf_addi(&b, integers[_i]);
	ck_assert_uint_eq(b.len, (size_t)n + 1);
	ck_assert_mem_eq(b.data + 1, want, (size_t)n);
}
END_TEST

START_TEST(buf_formats_every_length_at_the_edge)
{
	for (int n = 250; n < 260; n++) {
		_cleanup_buf_ struct buf b = {0};

		buf_addf(&b, "%0*d", n, 1);
		ck_assert_uint_eq(b.len, (size_t)n);
		ck_assert_int_eq(b.data[n - 1], '1');
	}
}
END_TEST

START_TEST(buf_formats_past_its_maximum)
{
	_cleanup_buf_ struct buf b = {.max = 3};

	buf_addf(&b, "%s", "abc");
	ck_assert(!b.failed);
	buf_addf(&b, "%s", "d");
	ck_assert(b.failed);
	ck_assert_uint_eq(b.len, 3);
}
END_TEST

static const struct {
	const char *in;
	size_t n;
	const char *want;
} json_strings[] = {
    {"", 0, "\"\""},
    {"abc", 3, "\"abc\""},
    {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
    {"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
    {"\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\""},
    {"Zürich €", 11, "\"Zürich €\""},
    {"x\n", 2, "\"x\\n\""},
    {"\nx", 2, "\"\\nx\""},
};

START_TEST(buf_adds_json_strings)
{
	_cleanup_buf_ struct buf b = {0};
	_cleanup_free_ char *s = NULL;

	buf_add_json_string(&b, json_strings[_i].in, json_strings[_i].n);
	s = buf_take(&b, NULL);
	ck_assert_str_eq(s, json_strings[_i].want);
}
END_TEST

/* ---- errors ---------------------------------------------------------------------------------- */

START_TEST(errors_have_places)
{
	_cleanup_errors_ struct errors *e = errors_new();

	errors_add(e, "a.sql", 3, "no %s", "good");
	errors_add(e, "a.sql", 0, "all of it");
	errors_add(e, NULL, 7, "nowhere");
	ck_assert_uint_eq(errors_count(e), 3);
	ck_assert_str_eq(errors_text(e, 0), "a.sql:3: no good");
	ck_assert_str_eq(errors_text(e, 1), "a.sql: all of it");
	ck_assert_str_eq(errors_text(e, 2), "nowhere");
	ck_assert_ptr_null(errors_text(e, 3));
}
END_TEST

START_TEST(errors_stay_on_one_line)
{
	_cleanup_errors_ struct errors *e = errors_new();

	errors_add(e, "a\nb", 1, "\x1b[31mred\x7f\r\n");
	ck_assert_str_eq(errors_text(e, 0), "a?b:1: ?[31mred???");
}
END_TEST

START_TEST(errors_past_the_bound_are_counted)
{
	_cleanup_errors_ struct errors *e = errors_new();
	_cleanup_free_ char *printed = NULL;
	size_t size, lines = 0;
	FILE *f;

	for (unsigned i = 1; i <= ERRORS_MAX + 5; i++)
		errors_add(e, "f", i, "wrong");
	ck_assert_uint_eq(errors_count(e), ERRORS_MAX + 5);
	ck_assert_ptr_nonnull(errors_text(e, ERRORS_MAX - 1));
	ck_assert_ptr_null(errors_text(e, ERRORS_MAX));

	f = open_memstream(&printed, &size);
	errors_print(e, f);
	fclose(f);
	for (size_t i = 0; i < size; i++)
		lines += printed[i] == '\n';
	ck_assert_uint_eq(lines, ERRORS_MAX + 1);
	ck_assert_ptr_nonnull(strstr(printed, "\nand 5 more\n"));
}
END_TEST

START_TEST(errors_free_takes_null)
{
	struct errors *e = NULL;

	errors_free(&e);
}
END_TEST

/* ---- strlist --------------------------------------------------------------------------------- */

START_TEST(strlist_keeps_copies)
{
	struct strlist a = {0}, b = {0};
	char text[] = "one,two";

	strlist_add(&a, text, 3);
	strlist_add(&a, text + 4, 3);
	memset(text, 'x', sizeof(text) - 1);
	ck_assert(strlist_has(&a, "one") && strlist_has(&a, "two"));
	ck_assert(!strlist_has(&a, "ONE") && strlist_has_nocase(&a, "ONE"));
	ck_assert(!strlist_has(&a, "on") && !strlist_has_nocase(&a, "three"));
	ck_assert(!strlist_equal(&a, &b));
	strlist_add(&b, "one", 3);
	strlist_add(&b, "TWO", 3);
	ck_assert(!strlist_equal(&a, &b));
	strlist_done(&b);
	ck_assert_uint_eq(b.count, 0);
	strlist_add(&b, "one", 3);
	strlist_add(&b, "two", 3);
	ck_assert(strlist_equal(&a, &b));
	strlist_done(&a);
	strlist_done(&b);
	strlist_done(&b);
	ck_assert(strlist_equal(&a, &b));
}
END_TEST

/* ---- units ----------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	int r;
	int64_t ms;
	const char *shortest;
} durations[] = {
    {"0", 0, 0, "0"},
    {"0s", 0, 0, "0"},
    {"1ms", 0, 1, "1ms"},
    {"500ms", 0, 500, "500ms"},
    {"1000ms", 0, 1000, "1s"},
    {"90s", 0, 90000, "90s"},
    {"60s", 0, 60000, "1m"},
    {"10m", 0, 600000, "10m"},
    {"60m", 0, 3600000, "1h"},
    {"24h", 0, 86400000, "1d"},
    {"36h", 0, 129600000, "36h"},
    {"7d", 0, 604800000, "7d"},
    {"007s", 0, 7000, "7s"},
    {"9223372036854775807ms", 0, INT64_MAX, "9223372036854775807ms"},
    {"9223372036854775808ms", -ERANGE, 0, NULL},
    {"9223372036854775807s", -ERANGE, 0, NULL},
    {"99999999999999999999999d", -ERANGE, 0, NULL},
    {"", -EINVAL, 0, NULL},
    {"s", -EINVAL, 0, NULL},
    {"5", -EINVAL, 0, NULL},
    {"00", -EINVAL, 0, NULL},
    {"-5s", -EINVAL, 0, NULL},
    {"+5s", -EINVAL, 0, NULL},
    {"5 s", -EINVAL, 0, NULL},
    {" 5s", -EINVAL, 0, NULL},
    {"5s ", -EINVAL, 0, NULL},
    {"1.5s", -EINVAL, 0, NULL},
    {"5S", -EINVAL, 0, NULL},
    {"5min", -EINVAL, 0, NULL},
    {"5sec", -EINVAL, 0, NULL},
    {"1h30m", -EINVAL, 0, NULL},
    {"0x10s", -EINVAL, 0, NULL},
    {"99999999999999999999999x", -EINVAL, 0, NULL},
};

START_TEST(durations_are_read_and_written)
{
	int64_t ms = -7;
	char out[32];

	ck_assert_int_eq(units_duration(durations[_i].text, &ms), durations[_i].r);
	if (durations[_i].r < 0) {
		ck_assert_int_eq(ms, -7);
		return;
	}
	ck_assert_int_eq(ms, durations[_i].ms);
	units_format_duration(ms, out, sizeof(out));
	ck_assert_str_eq(out, durations[_i].shortest);
	ck_assert_int_eq(units_duration(out, &ms), 0);
	ck_assert_int_eq(ms, durations[_i].ms);
}
END_TEST

static const struct {
	const char *text;
	int r;
	int64_t bytes;
	const char *shortest;
} sizes[] = {
    {"0", 0, 0, "0"},
    {"4096", 0, 4096, "4KiB"},
    {"4097", 0, 4097, "4097"},
    {"64KiB", 0, 65536, "64KiB"},
    {"1024KiB", 0, 1048576, "1MiB"},
    {"256MiB", 0, 268435456, "256MiB"},
    {"2GiB", 0, INT64_C(2147483648), "2GiB"},
    {"9223372036854775807", 0, INT64_MAX, "9223372036854775807"},
    {"9223372036854775808", -ERANGE, 0, NULL},
    {"9223372036854775807KiB", -ERANGE, 0, NULL},
    {"", -EINVAL, 0, NULL},
    {"KiB", -EINVAL, 0, NULL},
    {"1k", -EINVAL, 0, NULL},
    {"1KB", -EINVAL, 0, NULL},
    {"1kib", -EINVAL, 0, NULL},
    {"1 KiB", -EINVAL, 0, NULL},
    {"-1", -EINVAL, 0, NULL},
    {"1.5MiB", -EINVAL, 0, NULL},
    {"1TiB", -EINVAL, 0, NULL},
};

START_TEST(sizes_are_read_and_written)
{
	int64_t bytes = -7;
	char out[32];

	ck_assert_int_eq(units_size(sizes[_i].text, &bytes), sizes[_i].r);
	if (sizes[_i].r < 0) {
		ck_assert_int_eq(bytes, -7);
		return;
	}
	ck_assert_int_eq(bytes, sizes[_i].bytes);
	units_format_size(bytes, out, sizeof(out));
	ck_assert_str_eq(out, sizes[_i].shortest);
	ck_assert_int_eq(units_size(out, &bytes), 0);
	ck_assert_int_eq(bytes, sizes[_i].bytes);
}
END_TEST

static Suite *base_suite(void)
{
	Suite *s = suite_create("base");
	TCase *t = tcase_create("base");

	tcase_add_test(t, assertion_that_holds_does_nothing);
	tcase_add_test_raise_signal(t, assertion_that_fails_aborts, SIGABRT);
	tcase_add_test_raise_signal(t, magic_of_null_aborts, SIGABRT);
	tcase_add_test(t, xcalloc_of_nothing_is_something);
	tcase_add_exit_test(t, xcalloc_that_overflows_exits, EXIT_FAILURE);
	tcase_add_test(t, xstrndup_stops_at_nul_and_at_n);
	tcase_add_test(t, clock_does_not_go_back);
	tcase_add_test(t, jitter_stays_below_its_bound);
	tcase_add_test(t, jitter_differs_between_threads);
	tcase_add_loop_test(t, utf8_is_counted_or_refused, 0, ELEMENTSOF(utf8));
	tcase_add_test(t, utf8_prefix_of_a_character_is_refused);
	suite_add_tcase(s, t);

	t = tcase_create("buf");
	tcase_add_test(t, buf_grows_and_is_taken);
	tcase_add_test(t, buf_taken_empty_is_an_empty_string);
	tcase_add_test(t, buf_takes_exactly_its_maximum);
	tcase_add_test(t, buf_that_failed_stays_failed);
	tcase_add_test(t, buf_refuses_sizes_that_overflow);
	tcase_add_test(t, buf_reserves_without_adding);
	tcase_add_test(t, buf_formats_short_and_long);
	tcase_add_loop_test(t, integers_are_written_as_printf_does, 0, ELEMENTSOF(integers));
	tcase_add_test(t, buf_formats_every_length_at_the_edge);
	tcase_add_test(t, buf_formats_past_its_maximum);
	tcase_add_loop_test(t, buf_adds_json_strings, 0, ELEMENTSOF(json_strings));
	suite_add_tcase(s, t);

	t = tcase_create("errors");
	tcase_add_test(t, errors_have_places);
	tcase_add_test(t, errors_stay_on_one_line);
	tcase_add_test(t, errors_past_the_bound_are_counted);
	tcase_add_test(t, errors_free_takes_null);
	suite_add_tcase(s, t);

	t = tcase_create("strlist");
	tcase_add_test(t, strlist_keeps_copies);
	suite_add_tcase(s, t);

	t = tcase_create("units");
	tcase_add_loop_test(t, durations_are_read_and_written, 0, ELEMENTSOF(durations));
	tcase_add_loop_test(t, sizes_are_read_and_written, 0, ELEMENTSOF(sizes));
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(base_suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
