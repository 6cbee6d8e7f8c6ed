#include <signal.h>

#include "cache_fixture.h"

static void attach(struct entry *e, enum entry_coding coding, size_t len)
{
	char *bytes = xcalloc(len, 1);

	memset(bytes, 'z', len);
	cache_attach(c, e, coding, bytes, len);
}

START_TEST(variant_is_claimed_once_and_then_there)
{
	struct entry *e = make("a", "body", 1);
	uint64_t before;
	size_t len;

	ck_assert(!cache_claim_variant(c, e, CODING_GZIP)); /* not in the cache yet */
	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	before = stats().bytes;
	ck_assert_ptr_null(entry_variant(e, CODING_GZIP, &len));
	ck_assert(cache_claim_variant(c, e, CODING_GZIP));
	ck_assert(!cache_claim_variant(c, e, CODING_GZIP));
	ck_assert(cache_claim_variant(c, e, CODING_BR));
	attach(e, CODING_GZIP, 1000);
	ck_assert_mem_eq(entry_variant(e, CODING_GZIP, &len), "zzzz", 4);
	ck_assert_uint_eq(len, 1000);
	ck_assert_ptr_null(entry_variant(e, CODING_BR, &len));
	ck_assert(!cache_claim_variant(c, e, CODING_GZIP));
	ck_assert_uint_ge(stats().bytes, before + 1000);
	recount();
	attach(e, CODING_BR, 500);
	recount();
	entry_unref(&e);
	put("a", "other", 1);
	ck_assert_uint_le(stats().bytes, before + 100);
	recount();
}
END_TEST

START_TEST(variant_that_is_of_no_use_is_not_tried_again)
{
	struct entry *e = make("a", "body", 1);
	size_t len;

	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	ck_assert(cache_claim_variant(c, e, CODING_BR));
	cache_attach(c, e, CODING_BR, NULL, 0);
	ck_assert_ptr_null(entry_variant(e, CODING_BR, &len));
	ck_assert(!cache_claim_variant(c, e, CODING_BR));
	entry_unref(&e);
}
END_TEST

START_TEST(variant_of_what_has_left_is_dropped)
{
	struct entry *e = make("a", "body", 1);
	size_t len;

	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	ck_assert(cache_claim_variant(c, e, CODING_GZIP));
	put("a", "other", 1);
	attach(e, CODING_GZIP, 1000);
	ck_assert_ptr_null(entry_variant(e, CODING_GZIP, &len));
	ck_assert(!cache_claim_variant(c, e, CODING_BR));
	recount();
	entry_unref(&e);
}
END_TEST

START_TEST(variant_that_is_too_large_is_dropped)
{
	struct entry *e = make("a", "body", 1);
	size_t len;

	options.max_entry = 2000;
	cache_configure(c, &options);
	ck_assert_int_eq(stats().max_entry, 2000);
	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	ck_assert(cache_claim_variant(c, e, CODING_GZIP));
	attach(e, CODING_GZIP, 1000);
	ck_assert_ptr_nonnull(entry_variant(e, CODING_GZIP, &len));
	/* All of them together count. */
	ck_assert(cache_claim_variant(c, e, CODING_BR));
	attach(e, CODING_BR, 1000);
	ck_assert_ptr_null(entry_variant(e, CODING_BR, &len));
	recount();
	entry_unref(&e);
}
END_TEST

START_TEST(attaching_what_was_not_claimed_aborts)
{
	struct entry *e = make("a", "body", 1);

	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	attach(e, CODING_GZIP, 10);
}
END_TEST

static Suite *cache_variants_suite(void)
{
	Suite *s = suite_create("cache_variants");
	TCase *t = tcase_create("cache_variants");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, variant_is_claimed_once_and_then_there);
	tcase_add_test(t, variant_that_is_of_no_use_is_not_tried_again);
	tcase_add_test(t, variant_of_what_has_left_is_dropped);
	tcase_add_test(t, variant_that_is_too_large_is_dropped);
	tcase_add_test_raise_signal(t, attaching_what_was_not_claimed_aborts, SIGABRT);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run(cache_variants_suite());
}
