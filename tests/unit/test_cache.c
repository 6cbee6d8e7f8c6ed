#include <signal.h>

#include "cache_fixture.h"

/* ---- looking up ------------------------------------------------------------------------------ */

START_TEST(nothing_is_there_at_first)
{
	struct cache_found f = get("a", T0);

	ck_assert_int_eq(f.state, CACHE_MISS);
	ck_assert(!f.expired && !f.stale);
	ck_assert(!stale("a", T0));
	ck_assert_uint_eq(stats().misses, 1);
}
END_TEST

START_TEST(entry_is_what_was_put)
{
	struct cache_found f;
	size_t len;

	ck_assert_int_eq(put("a", "body", 1), 0);
	cache_get(c, key("a"), &rules, T0 + 5, &f);
	ck_assert_int_eq(f.state, CACHE_FRESH);
	ck_assert_int_eq(entry_kind(f.entry), ENTRY_BODY);
	ck_assert_mem_eq(entry_body(f.entry, &len), "body", 4);
	ck_assert_uint_eq(len, 4);
	ck_assert_str_eq((const char *)entry_etag(f.entry), "0123456789abcde");
	ck_assert_uint_eq(*entry_senders(f.entry), 0);
	ck_assert_int_eq(f.age_ms, 5);
	ck_assert_int_eq(f.ttl_ms, 995);
	ck_assert(!f.refresh && !f.stale && !f.expired);
	entry_unref(&f.entry);
	ck_assert_ptr_null(f.entry);
	entry_unref(&f.entry);
}
END_TEST

START_TEST(body_may_be_empty)
{
	struct cache_found f;
	size_t len = 1;

	ck_assert_int_eq(put("a", "", 1), 0);
	cache_get(c, key("a"), &rules, T0, &f);
	ck_assert_ptr_nonnull(entry_body(f.entry, &len));
	ck_assert_uint_eq(len, 0);
	entry_unref(&f.entry);
}
END_TEST

/* The whole key is compared, whatever its hash. */
START_TEST(keys_with_one_hash_are_told_apart)
{
	static const char *const text[] = {"a", "b", "ab", "", "a\0b", "a\0c"};
	static const size_t len[] = {1, 1, 2, 0, 3, 3};
	struct cache_key k = {.hash = 42};

	for (size_t i = 0; i < ELEMENTSOF(text); i++) {
		k.bytes = text[i];
		k.len = len[i];
		ck_assert_int_eq(put_and_forget(make_sized(ENTRY_BODY, k, text[i], len[i], 1), T0),
		                 0);
	}
	for (size_t i = 0; i < ELEMENTSOF(text); i++) {
		struct cache_found f;
		size_t n;

		k.bytes = text[i];
		k.len = len[i];
		cache_get(c, k, &rules, T0, &f);
		ck_assert_int_eq(f.state, CACHE_FRESH);
		ck_assert_mem_eq(entry_body(f.entry, &n), text[i], len[i]);
		ck_assert_uint_eq(n, len[i]);
		entry_unref(&f.entry);
	}
	k.bytes = "c";
	k.len = 1;
	ck_assert_ptr_null(cache_peek(c, k, &rules, T0));
	recount();
}
END_TEST

START_TEST(peek_counts_and_moves_nothing)
{
	struct cache_stats s;
	struct entry *e;

	rules.swr_ms = 1000;
	put("a", "body", 1);
	e = cache_peek(c, key("a"), &rules, T0 + 999);
	ck_assert_ptr_nonnull(e);
	entry_unref(&e);
	ck_assert_ptr_null(cache_peek(c, key("a"), &rules, T0 + 1000));
	ck_assert_ptr_null(cache_peek(c, key("b"), &rules, T0));
	generations_raise(g, 1);
	ck_assert_ptr_null(cache_peek(c, key("a"), &rules, T0));
	s = stats();
	ck_assert_uint_eq(s.hits + s.misses + s.expirations + s.invalidations, 0);
}
END_TEST

/* ---- time ------------------------------------------------------------------------------------ */

START_TEST(fresh_until_its_ttl)
{
	struct cache_found f;

	put("a", "body", 1);
	f = get("a", T0 + 999);
	ck_assert_int_eq(f.state, CACHE_FRESH);
	ck_assert_int_eq(f.ttl_ms, 1);
	f = get("a", T0 + 1000);
	ck_assert_int_eq(f.state, CACHE_MISS);
	ck_assert(f.expired && !f.stale);
	ck_assert_int_eq(state("a", T0 + 1001), CACHE_MISS);
}
END_TEST

START_TEST(time_counts_from_when_it_was_begun)
{
	struct cache_found f;

	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 600), 0);
	f = get("a", T0 + 700);
	ck_assert_int_eq(f.age_ms, 700);
	ck_assert_int_eq(f.ttl_ms, 300);
	ck_assert_int_eq(state("a", T0 + 1000), CACHE_MISS);
}
END_TEST

START_TEST(clock_of_another_thread_may_be_behind)
{
	struct cache_found f;

	put("a", "body", 1);
	f = get("a", T0 - 1);
	ck_assert_int_eq(f.state, CACHE_FRESH);
	ck_assert_int_eq(f.age_ms, 0);
}
END_TEST

START_TEST(stale_while_revalidate_from_ttl_to_its_end)
{
	struct cache_found f;

	rules.swr_ms = 500;
	put("a", "body", 1);
	ck_assert_int_eq(state("a", T0 + 999), CACHE_FRESH);
	f = get("a", T0 + 1000);
	ck_assert_int_eq(f.state, CACHE_SWR);
	ck_assert_int_eq(f.ttl_ms, 0);
	f = get("a", T0 + 1499);
	ck_assert_int_eq(f.state, CACHE_SWR);
	ck_assert_int_eq(f.ttl_ms, -499);
	ck_assert_int_eq(f.age_ms, 1499);
	ck_assert_int_eq(state("a", T0 + 1500), CACHE_MISS);
	ck_assert_uint_eq(stats().swr, 2);
	ck_assert_uint_eq(stats().hits, 3);
}
END_TEST

START_TEST(one_caller_at_a_time_refreshes)
{
	rules.swr_ms = 10000;
	put("a", "body", 1);
	ck_assert(!get("a", T0 + 999).refresh);
	ck_assert(get("a", T0 + 1000).refresh);
	ck_assert(!get("a", T0 + 1000).refresh);
	ck_assert(!get("a", T0 + 1000 + CACHE_REFRESH_MS - 1).refresh);
	ck_assert(get("a", T0 + 1000 + CACHE_REFRESH_MS).refresh);
	ck_assert(!get("a", T0 + 1000 + CACHE_REFRESH_MS + 1).refresh);
}
END_TEST

START_TEST(never_stale_while_revalidate_once_invalidated)
{
	rules.swr_ms = 500;
	put("a", "body", 1);
	ck_assert_int_eq(state("a", T0 + 1000), CACHE_SWR);
	generations_raise(g, 1);
	ck_assert_int_eq(state("a", T0 + 1000), CACHE_MISS);
	ck_assert_int_eq(state("a", T0 + 999), CACHE_MISS);
}
END_TEST

START_TEST(max_stale_after_an_invalidation)
{
	struct cache_found f;

	rules.max_stale_ms = 200;
	put("a", "body", 1);
	ck_assert_int_eq(state("a", T0 + 10), CACHE_FRESH);
	generations_raise(g, 1);
	f = get("a", T0 + 199);
	ck_assert_int_eq(f.state, CACHE_MAX_STALE);
	ck_assert_int_eq(f.ttl_ms, 0);
	ck_assert_int_eq(f.age_ms, 199);
	ck_assert(!f.refresh);
	ck_assert_int_eq(state("a", T0 + 200), CACHE_MISS);
	ck_assert_uint_eq(stats().max_stale, 1);
	ck_assert_uint_eq(stats().invalidations, 1);
}
END_TEST

START_TEST(max_stale_ends_with_the_ttl)
{
	rules.max_stale_ms = 5000;
	put("a", "body", 1);
	generations_raise(g, 1);
	ck_assert_int_eq(state("a", T0 + 999), CACHE_MAX_STALE);
	ck_assert_int_eq(state("a", T0 + 1000), CACHE_MISS);
}
END_TEST

START_TEST(stale_if_error_whatever_became_of_it)
{
	struct cache_found f;

	rules.stale_if_error_ms = 300;
	put("a", "body", 1);
	put("b", "body", 2);
	generations_raise(g, 2);
	ck_assert(get("b", T0).stale);
	ck_assert(get("a", T0 + 1299).stale);
	ck_assert(!get("a", T0 + 1300).stale);
	ck_assert(stale("a", T0));
	ck_assert(stale("a", T0 + 1299));
	ck_assert(!stale("a", T0 + 1300));
	ck_assert(stale("b", T0 + 1299));
	ck_assert(!stale("b", T0 + 1300));

	ck_assert(cache_get_stale(c, key("a"), &rules, T0 + 1200, &f));
	ck_assert_int_eq(f.state, CACHE_MISS);
	ck_assert_int_eq(f.ttl_ms, -200);
	ck_assert_int_eq(f.age_ms, 1200);
	entry_unref(&f.entry);
	/* Begun again meanwhile, or the stream of invalidations is what has failed. */
	ck_assert(cache_get_stale(c, key("a"), &rules, T0 + 400, &f));
	ck_assert_int_eq(f.state, CACHE_FRESH);
	ck_assert_int_eq(f.ttl_ms, 600);
	entry_unref(&f.entry);
	ck_assert(cache_get_stale(c, key("b"), &rules, T0 + 400, &f));
	ck_assert_int_eq(f.state, CACHE_MISS);
	ck_assert_int_eq(f.ttl_ms, 0);
	entry_unref(&f.entry);
	ck_assert_uint_eq(stats().stale_if_error, 6);
}
END_TEST

START_TEST(no_stale_if_error_without_it)
{
	struct cache_found f = {.age_ms = 42};

	put("a", "body", 1);
	ck_assert(!stale("a", T0));
	generations_raise(g, 1);
	ck_assert(!get("a", T0).stale);
	ck_assert(!cache_get_stale(c, key("a"), &rules, T0, &f));
	ck_assert_int_eq(f.age_ms, 42);
	ck_assert_uint_eq(stats().stale_if_error, 0);
}
END_TEST

START_TEST(absence_is_fresh_for_negative_ttl_and_never_stale)
{
	struct cache_found f;

	rules.swr_ms = rules.max_stale_ms = rules.stale_if_error_ms = 100000;
	ck_assert_int_eq(put_absence("a"), 0);
	cache_get(c, key("a"), &rules, T0 + 99, &f);
	ck_assert_int_eq(f.state, CACHE_FRESH);
	ck_assert_int_eq(entry_kind(f.entry), ENTRY_ABSENCE);
	entry_unref(&f.entry);
	ck_assert(!stale("a", T0 + 99));
	f = get("a", T0 + 100);
	ck_assert_int_eq(f.state, CACHE_MISS);
	ck_assert(f.expired && !f.stale);
	ck_assert(!stale("a", T0 + 100));

	put_absence("b");
	generations_raise(g, 1);
	ck_assert_int_eq(state("b", T0), CACHE_MISS);
	ck_assert(!stale("b", T0));
}
END_TEST

START_TEST(absence_is_not_fresh_for_longer_than_a_body)
{
	rules.ttl_ms = 40;
	put_absence("a");
	ck_assert_int_eq(state("a", T0 + 39), CACHE_FRESH);
	ck_assert_int_eq(state("a", T0 + 40), CACHE_MISS);
	rules.ttl_ms = 0;
	ck_assert_int_eq(put_absence("b"), -ECANCELED);
}
END_TEST

START_TEST(rules_of_the_moment_apply_to_what_is_stored)
{
	put("a", "body", 1);
	put_absence("b");
	rules.ttl_ms = 50;
	ck_assert_int_eq(state("a", T0 + 50), CACHE_MISS);
	rules.ttl_ms = 2000;
	ck_assert_int_eq(state("a", T0 + 1999), CACHE_FRESH);
	options.negative_ttl_ms = 300;
	cache_configure(c, &options);
	ck_assert_int_eq(state("b", T0 + 299), CACHE_FRESH);
	ck_assert_int_eq(state("b", T0 + 300), CACHE_MISS);
	ck_assert_int_eq(stats().negative_ttl_ms, 300);
}
END_TEST

START_TEST(ttl_is_shortened_by_up_to_a_twentieth)
{
	enum { N = 2000, TTL = 100000 };
	int64_t least = INT64_MAX, most = 0;

	rules.ttl_ms = TTL;
	for (unsigned i = 0; i < N; i++) {
		struct entry_parts p = {.key = key("a"), .started_ms = T0};
		struct entry *e = entry_new(&p);
		struct cache_found f;

		ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
		cache_get(c, key("a"), &rules, T0, &f);
		least = MIN(least, f.ttl_ms);
		most = MAX(most, f.ttl_ms);
		/* Once per entry, not once per lookup. */
		ck_assert_int_eq(get("a", T0).ttl_ms, f.ttl_ms);
		entry_unref(&f.entry);
		entry_unref(&e);
	}
	ck_assert_int_gt(least, TTL - TTL / 20);
	ck_assert_int_lt(least, TTL - TTL / 20 + TTL / 200);
	ck_assert_int_le(most, TTL);
	ck_assert_int_gt(most, TTL - TTL / 200);
}
END_TEST

/* ---- storing --------------------------------------------------------------------------------- */

START_TEST(what_was_raised_since_its_start_is_not_stored)
{
	struct entry *e = make("a", "body", 1);

	generations_raise(g, 2);
	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	entry_unref(&e);
	e = make("a", "body", 1);
	generations_raise(g, 1);
	rules.stale_if_error_ms = rules.swr_ms = 10000;
	ck_assert_int_eq(cache_put(c, e, &rules, T0), -ESTALE);
	generations_raise_epoch(g);
	ck_assert_int_eq(cache_put(c, e, &rules, T0), -ESTALE);
	ck_assert_uint_eq(stats().outdated, 2);
	ck_assert_uint_eq(stats().stores, 1);
	entry_unref(&e);
}
END_TEST

START_TEST(max_stale_allows_storing_what_was_raised)
{
	rules.max_stale_ms = 50;
	for (unsigned i = 0; i < 2; i++) {
		struct entry *e = make("a", "body", 1);

		generations_raise(g, 1);
		ck_assert_int_eq(cache_put(c, e, &rules, i ? T0 + 50 : T0 + 49), i ? -ESTALE : 0);
		entry_unref(&e);
	}
	ck_assert_int_eq(state("a", T0 + 49), CACHE_MAX_STALE);
	ck_assert_int_eq(state("a", T0 + 50), CACHE_MISS);
}
END_TEST

START_TEST(what_can_never_be_served_is_not_stored)
{
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 999), 0);
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 1000), -ECANCELED);
	rules.swr_ms = 1;
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 1000), 0);
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 1001), -ECANCELED);
	rules.stale_if_error_ms = 2;
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 1001), 0);
	ck_assert_int_eq(put_and_forget(make("a", "body", 1), T0 + 1002), -ECANCELED);
	rules = (struct freshness){0};
	ck_assert_int_eq(put("a", "body", 1), -ECANCELED);
}
END_TEST

START_TEST(replaced_by_what_was_begun_later)
{
	struct entry *old = make("a", "old", 1), *new = make("a", "new", 1);
	struct cache_found f;
	size_t len;

	new->started_ms++;
	ck_assert_int_eq(cache_put(c, new, &rules, T0 + 1), 0);
	ck_assert_int_eq(cache_put(c, old, &rules, T0 + 1), 0);
	cache_get(c, key("a"), &rules, T0 + 1, &f);
	ck_assert_ptr_eq(f.entry, new);
	entry_unref(&f.entry);
	entry_unref(&new);

	/* The start decides, then the clock. */
	generations_raise(g, 9);
	new = make("a", "newest", 1);
	ck_assert_int_eq(cache_put(c, new, &rules, T0 + 1), 0);
	cache_get(c, key("a"), &rules, T0 + 1, &f);
	ck_assert_ptr_eq(f.entry, new);
	ck_assert_int_eq(cache_put(c, old, &rules, T0 + 1), 0);
	ck_assert_mem_eq(entry_body(f.entry, &len), "newest", 6);
	ck_assert_int_eq(state("a", T0 + 1000), CACHE_MISS);
	ck_assert_uint_eq(stats().entries, 1);
	ck_assert_uint_eq(stats().stores, 2);
	entry_unref(&f.entry);
	entry_unref(&new);
	entry_unref(&old);
	recount();
}
END_TEST

START_TEST(what_is_referenced_outlives_its_replacement)
{
	struct cache_found f;
	size_t len;

	put("a", "first", 1);
	cache_get(c, key("a"), &rules, T0, &f);
	put("a", "second", 1);
	ck_assert_mem_eq(entry_body(f.entry, &len), "first", 5);
	ck_assert_uint_eq(stats().entries, 1);
	cache_free(&c);
	ck_assert_mem_eq(entry_body(f.entry, &len), "first", 5);
	entry_ref(f.entry);
	struct entry *e = f.entry;
	entry_unref(&e);
	entry_unref(&f.entry);
}
END_TEST

START_TEST(kinds_replace_each_other)
{
	put("a", "body", 1);
	put_absence("a");
	ck_assert_uint_eq(stats().absences, 1);
	ck_assert_uint_eq(stats().entries, 1);
	recount();
	put("a", "body", 1);
	ck_assert_uint_eq(stats().absences, 0);
	recount();
	ck_assert_int_eq(state("a", T0 + 999), CACHE_FRESH);
}
END_TEST

START_TEST(hits_pass_on_to_the_replacement)
{
	struct cache_stats s;

	put("a", "body", 1);
	get("a", T0);
	get("a", T0);
	put("a", "body", 1);
	get("a", T0);
	cache_stats(c, &s);
	ck_assert_str_eq(s.top[0].key, "a");
	ck_assert_uint_eq(s.top[0].key_len, 1);
	ck_assert_uint_eq(s.top[0].hits, 3);
	ck_assert_ptr_null(s.top[1].key);
	cache_stats_done(&s);
	ck_assert_ptr_null(s.top[0].key);
	cache_stats_done(&s);
}
END_TEST

START_TEST(becoming_stale_is_counted_once)
{
	put("a", "body", 1);
	put("b", "body", 2);
	generations_raise(g, 2);
	for (unsigned i = 0; i < 3; i++) {
		get("a", T0 + 1000);
		get("b", T0);
	}
	ck_assert_uint_eq(stats().expirations, 1);
	ck_assert_uint_eq(stats().invalidations, 1);
	ck_assert_uint_eq(stats().misses, 6);
	for (unsigned i = 0; i < CACHE_SWEEP_TURN; i++)
		cache_sweep(c, T0 + 1000);
	ck_assert_uint_eq(stats().entries, 0);
	ck_assert_uint_eq(stats().expirations, 2);
}
END_TEST

START_TEST(putting_an_entry_twice_aborts)
{
	struct entry *e = make("a", "body", 1);

	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	put("a", "other", 1);
	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
}
END_TEST

static Suite *cache_suite(void)
{
	Suite *s = suite_create("cache");
	TCase *t = tcase_create("cache");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, nothing_is_there_at_first);
	tcase_add_test(t, entry_is_what_was_put);
	tcase_add_test(t, body_may_be_empty);
	tcase_add_test(t, keys_with_one_hash_are_told_apart);
	tcase_add_test(t, peek_counts_and_moves_nothing);
	tcase_add_test(t, fresh_until_its_ttl);
	tcase_add_test(t, time_counts_from_when_it_was_begun);
	tcase_add_test(t, clock_of_another_thread_may_be_behind);
	tcase_add_test(t, stale_while_revalidate_from_ttl_to_its_end);
	tcase_add_test(t, one_caller_at_a_time_refreshes);
	tcase_add_test(t, never_stale_while_revalidate_once_invalidated);
	tcase_add_test(t, max_stale_after_an_invalidation);
	tcase_add_test(t, max_stale_ends_with_the_ttl);
	tcase_add_test(t, stale_if_error_whatever_became_of_it);
	tcase_add_test(t, no_stale_if_error_without_it);
	tcase_add_test(t, absence_is_fresh_for_negative_ttl_and_never_stale);
	tcase_add_test(t, absence_is_not_fresh_for_longer_than_a_body);
	tcase_add_test(t, rules_of_the_moment_apply_to_what_is_stored);
	tcase_add_test(t, ttl_is_shortened_by_up_to_a_twentieth);
	tcase_add_test(t, what_was_raised_since_its_start_is_not_stored);
	tcase_add_test(t, max_stale_allows_storing_what_was_raised);
	tcase_add_test(t, what_can_never_be_served_is_not_stored);
	tcase_add_test(t, replaced_by_what_was_begun_later);
	tcase_add_test(t, what_is_referenced_outlives_its_replacement);
	tcase_add_test(t, kinds_replace_each_other);
	tcase_add_test(t, hits_pass_on_to_the_replacement);
	tcase_add_test(t, becoming_stale_is_counted_once);
	tcase_add_test_raise_signal(t, putting_an_entry_twice_aborts, SIGABRT);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run(cache_suite());
}
