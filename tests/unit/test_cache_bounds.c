#include "cache_fixture.h"

/* What an entry of put_number costs. */
static int64_t cost_of(size_t len, enum entry_kind kind)
{
	static const char zeros[4 * MIB];
	struct entry *e = make_sized(kind, key("key-0"), zeros, len, 1);
	int64_t n = entry_charge(e);

	entry_unref(&e);
	return n;
}

static void resize(int64_t capacity)
{
	options.capacity = capacity;
	cache_configure(c, &options);
}

/* ---- capacity -------------------------------------------------------------------------------- */

START_TEST(capacity_is_kept)
{
	for (unsigned i = 0; i < 20000; i++) {
		ck_assert_int_eq(put_number(i, 1000 + i % 1000, ENTRY_BODY), 0);
		ck_assert_uint_le(stats().bytes, 16 * MIB);
	}
	ck_assert_uint_gt(stats().bytes, 16 * MIB - 4000);
	ck_assert_uint_eq(stats().evictions + stats().entries, 20000);
	recount();
}
END_TEST

START_TEST(least_recently_used_go_first)
{
	char text[32];
	unsigned stored = 0;

	resize(MIB);
	while (stats().evictions == 0)
		put_number(stored++, 10000, ENTRY_BODY);
	ck_assert(!is_there(0));
	ck_assert(is_there(1));
	snprintf(text, sizeof(text), "key-%u", 1);
	get(text, T0);
	put_number(stored++, 10000, ENTRY_BODY);
	ck_assert(is_there(1));
	ck_assert(!is_there(2));
	ck_assert(is_there(3));
}
END_TEST

START_TEST(absences_cannot_push_bodies_out)
{
	unsigned bodies = 0;

	while (stats().evictions == 0)
		put_number(bodies++, 10000, ENTRY_BODY);
	for (unsigned i = 0; i < 100000; i++)
		ck_assert_int_eq(put_number(1000000 + i, 0, ENTRY_ABSENCE), 0);
	ck_assert_uint_ge((stats().entries - stats().absences) * 100, bodies * 90u);
	ck_assert_int_le(c->shard[0].absence_bytes, 16 * MIB / ABSENCE_SHARE);
	ck_assert_int_gt(c->shard[0].absence_bytes, 16 * MIB / ABSENCE_SHARE - 1000);
	ck_assert_uint_le(stats().bytes, 16 * MIB);
	recount();
	/* And bodies do not push absences out of what is theirs. */
	for (unsigned i = 0; i < 3000; i++)
		put_number(bodies++, 10000, ENTRY_BODY);
	ck_assert_int_gt(c->shard[0].absence_bytes, 16 * MIB / ABSENCE_SHARE - 1000);
	recount();
}
END_TEST

START_TEST(too_large_is_refused)
{
	enum { LEN = 5000 };
	int64_t cost = cost_of(LEN, ENTRY_BODY);

	options.max_entry = cost;
	resize(cost * ENTRY_SHARE);
	ck_assert_int_eq(put_number(1, LEN, ENTRY_BODY), 0);
	ck_assert_int_eq(put_number(2, LEN + 16, ENTRY_BODY), -E2BIG);
	options.max_entry = cost - 1;
	resize(cost * ENTRY_SHARE);
	ck_assert_int_eq(put_number(3, LEN, ENTRY_BODY), -E2BIG);
	options.max_entry = cost;
	resize(cost * ENTRY_SHARE - 1);
	ck_assert_int_eq(put_number(4, LEN, ENTRY_BODY), -E2BIG);
	ck_assert_uint_eq(stats().refused, 3);
	ck_assert(cache_would_store(c, 1));
	ck_assert(!cache_would_store(c, (size_t)cost));
	ck_assert_uint_eq(stats().refused, 4);

	cost = cost_of(0, ENTRY_ABSENCE);
	resize(cost * ABSENCE_SHARE);
	ck_assert_int_eq(put_number(5, 0, ENTRY_ABSENCE), 0);
	resize(cost * ABSENCE_SHARE - 1);
	ck_assert_int_eq(put_number(6, 0, ENTRY_ABSENCE), -E2BIG);
	recount();
}
END_TEST

START_TEST(nothing_is_stored_without_capacity)
{
	put_number(1, 10, ENTRY_BODY);
	resize(0);
	ck_assert_uint_eq(stats().entries, 0);
	ck_assert_int_eq(put_number(1, 10, ENTRY_BODY), -E2BIG);
	resize(MIB);
	ck_assert_int_eq(put_number(1, 10, ENTRY_BODY), 0);
}
END_TEST

START_TEST(smaller_capacity_applies_at_once)
{
	uint64_t kept;

	for (unsigned i = 0; i < 40000; i++)
		put_number(i, 10, ENTRY_BODY);
	ck_assert_uint_eq(stats().entries, 40000);
	ck_assert_uint_ge(table_size(&c->shard[0].table), 32768);
	resize(MIB);
	ck_assert_int_eq(stats().capacity, MIB);
	ck_assert_uint_le(stats().bytes, MIB);
	/* The table has shrunk with it, and nothing was evicted to make room for the large one. */
	kept = stats().entries;
	ck_assert_uint_gt(kept, 3500);
	ck_assert_uint_le(table_size(&c->shard[0].table), kept * 8);
	ck_assert_ptr_null(c->shard[0].table.old);
	for (unsigned i = 0; i < 40000; i++)
		ck_assert(is_there(i) == (i >= 40000 - kept));
	recount();
	resize(16 * MIB);
	for (unsigned i = 0; i < 40000; i++)
		put_number(i, 10, ENTRY_BODY);
	ck_assert_uint_eq(stats().entries, 40000);
	recount();
}
END_TEST

START_TEST(what_is_referenced_outlives_its_eviction)
{
	struct cache_found f;
	size_t len;

	put("a", "body", 1);
	cache_get(c, key("a"), &rules, T0, &f);
	resize(0);
	ck_assert_uint_eq(stats().entries, 0);
	ck_assert_mem_eq(entry_body(f.entry, &len), "body", 4);
	cache_free(&c);
	ck_assert_mem_eq(entry_body(f.entry, &len), "body", 4);
	entry_unref(&f.entry);
}
END_TEST

/* Only when the process has outgrown the capacity, and not again at once unless it is far too
 * large. */
START_TEST(memory_is_given_back_when_it_is_time)
{
	static char ballast[96 * MIB];

	resize(1024 * (int64_t)MIB);
	cache_trim_memory(c, 1000);
	ck_assert_uint_eq(c->trim_ms, 0);
	ck_assert_int_gt(c->lowest, 0);

	memset(ballast, 1, sizeof(ballast)); /* resident, and not the allocator's */
	resize(MIB);
	cache_trim_memory(c, 1000);
	ck_assert_uint_gt(c->trim_ms, 1000);

	uint64_t next = c->trim_ms;
	cache_trim_memory(c, next); /* has not grown since */
	ck_assert_uint_eq(c->trim_ms, next);
	c->lowest = 1;
	cache_trim_memory(c, next - 1); /* far too large */
	ck_assert_uint_gt(c->trim_ms, next);
}
END_TEST

START_TEST(variants_count_and_evict)
{
	struct entry *e;
	unsigned stored = 0;

	while (stats().evictions == 0)
		put_number(stored++, 10000, ENTRY_BODY);
	e = make("a", "body", 1);
	ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
	ck_assert(cache_claim_variant(c, e, CODING_GZIP));
	cache_attach(c, e, CODING_GZIP, xcalloc(1, MIB), MIB);
	ck_assert_uint_gt(stats().evictions, 100);
	ck_assert_uint_le(stats().bytes, 16 * MIB);
	recount();
	entry_unref(&e);
}
END_TEST

START_TEST(entry_costs_two_hundred_bytes_at_most)
{
	static const char text[] = "users-get 0123456789abcdef 00000000";
	gen_slot slot[8] = {0}; /* as many tags as a course has */
	uint64_t before = stats().bytes;

	for (unsigned i = 0; i < 16384; i++) {
		struct entry_parts p = {
		    .key = {.hash = i * 0x9e3779b97f4a7c15u, .bytes = text, .len = sizeof(text)},
		    .body = text,
		    .body_len = 8 + i % 16,
		    .slot = slot,
		    .slots = ELEMENTSOF(slot),
		    .started_ms = T0,
		};
		struct entry *e = entry_new(&p);

		ck_assert_int_eq(cache_put(c, e, &rules, T0), 0);
		entry_unref(&e);
	}
	ck_assert_uint_le((stats().bytes - before) / 16384, sizeof(text) + 16 + 200);
}
END_TEST

/* ---- the sweep ------------------------------------------------------------------------------- */

static void sweep_turn(uint64_t now_ms)
{
	for (unsigned i = 0; i < CACHE_SWEEP_TURN; i++)
		cache_sweep(c, now_ms);
}

START_TEST(sweep_frees_what_is_dead_and_nothing_else)
{
	static const unsigned shards[] = {1, 16, 1024};

	rules.stale_if_error_ms = 100;
	for (size_t k = 0; k < ELEMENTSOF(shards); k++) {
		teardown();
		fixture(256 * MIB, shards[k]);
		rules.stale_if_error_ms = 100;
		for (unsigned i = 0; i < 5000; i++)
			put_number(i, 10, ENTRY_BODY);
		rules.swr_ms = 300;
		for (unsigned i = 5000; i < 10000; i++)
			put_number(i, 10, ENTRY_BODY);
		sweep_turn(T0 + 1099);
		ck_assert_uint_eq(stats().entries, 10000);
		sweep_turn(T0 + 1100);
		ck_assert_uint_eq(stats().entries, 5000);
		ck_assert_uint_eq(stats().expirations, 5000);
		sweep_turn(T0 + 1299);
		ck_assert_uint_eq(stats().entries, 5000);
		sweep_turn(T0 + 1300);
		ck_assert_uint_eq(stats().entries, 0);
		ck_assert_uint_eq(stats().expirations, 10000);
		ck_assert_uint_eq(stats().evictions, 0);
		recount();
	}
}
END_TEST

START_TEST(sweep_frees_what_is_invalidated_and_of_no_use)
{
	put("a", "body", 1);
	put("b", "body", 2);
	rules.stale_if_error_ms = 1;
	put("c", "body", 1);
	rules.stale_if_error_ms = 0;
	rules.max_stale_ms = 1;
	put("d", "body", 1);
	put_absence("e");
	generations_raise(g, 1);
	sweep_turn(T0);
	ck_assert_uint_eq(stats().entries, 3);
	ck_assert_uint_eq(stats().absences, 0);
	ck_assert_uint_eq(stats().invalidations, 2);
	ck_assert_int_eq(state("b", T0), CACHE_FRESH);
	recount();
}
END_TEST

START_TEST(sweep_is_a_bounded_piece_each_time)
{
	uint64_t before;

	for (unsigned i = 0; i < 40000; i++)
		put_number(i, 10, ENTRY_BODY);
	while (c->shard[0].table.old)
		cache_sweep(c, T0);
	before = stats().entries;
	while (stats().entries > 30000) {
		cache_sweep(c, T0 + 1000);
		/* A thousandth of the buckets, with about one entry in each. */
		ck_assert_uint_le(before - stats().entries, 40000 / CACHE_SWEEP_TURN * 5);
		before = stats().entries;
	}
}
END_TEST

START_TEST(sweep_shrinks_the_table)
{
	for (unsigned i = 0; i < 40000; i++)
		put_number(i, 10, ENTRY_BODY);
	sweep_turn(T0 + 1000);
	ck_assert_uint_eq(stats().entries, 0);
	for (unsigned i = 0; i < 3; i++)
		sweep_turn(T0 + 1000);
	ck_assert_uint_eq(table_size(&c->shard[0].table), TABLE_MIN);
	ck_assert_uint_lt(stats().bytes, 1000);
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------- */

START_TEST(everything_is_found_while_the_table_changes)
{
	unsigned changing = 0;

	for (unsigned i = 0; i < 2000; i++) {
		put_number(i, 10, ENTRY_BODY);
		changing += c->shard[0].table.old != NULL;
		for (unsigned k = 0; k <= i; k += 1 + k / 8)
			ck_assert(is_there(k));
	}
	ck_assert_uint_gt(changing, 100);
	recount();
}
END_TEST

START_TEST(table_changes_a_few_buckets_at_a_time)
{
	struct table *t = &c->shard[0].table;
	uint32_t moved = 0;

	for (unsigned i = 0; i < 40000; i++) {
		put_number(i, 10, ENTRY_BODY);
		if (t->old && t->moved > moved)
			ck_assert_uint_le(t->moved - moved, 2 * SHARD_STEP);
		moved = t->old ? t->moved : 0;
		/* Never so late that chains grow long. */
		ck_assert_uint_le(t->count, table_size(t) + 1);
	}
}
END_TEST

/* ---- recency --------------------------------------------------------------------------------- */

enum { LISTED = 100 };

START_TEST(recent_entry_is_not_moved_again)
{
	struct entry *e = xcalloc(LISTED, sizeof(*e));
	struct recency r = {0};

	for (size_t i = 0; i < LISTED; i++)
		recency_insert(&r, &e[i]);
	ck_assert_ptr_eq(recency_victim(&r), &e[0]);
	/* 12 were inserted after e[87], 13 after e[86]. */
	recency_hit(&r, &e[87]);
	ck_assert_ptr_eq(r.newest, &e[99]);
	recency_hit(&r, &e[86]);
	ck_assert_ptr_eq(r.newest, &e[86]);
	ck_assert_ptr_eq(e[87].older, &e[85]);
	/* A move is not an insertion. */
	recency_hit(&r, &e[87]);
	ck_assert_ptr_eq(r.newest, &e[86]);
	recency_hit(&r, &e[0]);
	ck_assert_ptr_eq(r.newest, &e[0]);
	recency_hit(&r, &e[86]);
	ck_assert_ptr_eq(r.newest, &e[0]);
	ck_assert_ptr_eq(recency_victim(&r), &e[1]);
	for (size_t i = 0; i < LISTED; i++)
		recency_remove(&r, &e[i]);
	ck_assert_ptr_null(recency_victim(&r));
	ck_assert_ptr_null(r.newest);
	ck_assert_uint_eq(r.count, 0);
	free(e);
}
END_TEST

START_TEST(recency_goes_on_when_its_clock_wraps)
{
	struct entry *e = xcalloc(LISTED, sizeof(*e));
	struct recency r = {.clock = UINT32_MAX - LISTED / 2};

	for (size_t i = 0; i < LISTED; i++)
		recency_insert(&r, &e[i]);
	recency_hit(&r, &e[99]);
	ck_assert_ptr_eq(r.newest, &e[99]);
	recency_hit(&r, &e[0]);
	ck_assert_ptr_eq(r.newest, &e[0]);
	ck_assert_ptr_eq(recency_victim(&r), &e[1]);
	free(e);
}
END_TEST

/* ---- the most used --------------------------------------------------------------------------- */

static void check_top(unsigned last)
{
	struct cache_stats s;

	cache_stats(c, &s);
	for (unsigned i = 0; i < CACHE_TOP; i++) {
		char text[32];

		snprintf(text, sizeof(text), "key-%u", last - i);
		ck_assert_str_eq(s.top[i].key, text);
		ck_assert_uint_eq(s.top[i].hits, last - i);
	}
	cache_stats_done(&s);
}

START_TEST(most_used_are_told)
{
	for (unsigned shards = 1; shards <= 16; shards *= 16) {
		teardown();
		fixture(16 * MIB, shards);
		for (unsigned i = 0; i < 60; i++)
			put_number(i, 10, ENTRY_BODY);
		/* In turns, so that who is among them changes all the time. */
		for (unsigned round = 0; round < 60; round++) {
			for (unsigned i = round + 1; i < 60; i++) {
				char text[32];

				snprintf(text, sizeof(text), "key-%u", i);
				get(text, T0);
			}
		}
		check_top(59);
		/* Replacing changes nothing. */
		for (unsigned i = 0; i < 60; i++)
			put_number(i, 10, ENTRY_BODY);
		check_top(59);
	}
}
END_TEST

START_TEST(who_has_left_is_not_among_the_most_used)
{
	struct cache_stats s;

	put("a", "body", 1);
	get("a", T0);
	resize(0);
	cache_stats(c, &s);
	ck_assert_ptr_null(s.top[0].key);
	cache_stats_done(&s);
}
END_TEST

static void hit_number(unsigned i, unsigned times)
{
	char text[32];

	snprintf(text, sizeof(text), "key-%u", i);
	while (times-- > 0)
		get(text, T0);
}

START_TEST(others_follow_the_most_used_that_have_left)
{
	struct cache_stats s;

	for (unsigned i = 0; i <= CACHE_TOP; i++) {
		put_number(i, 10, ENTRY_BODY);
		hit_number(i, 100 + i);
	}
	resize(0);
	resize(MIB);
	for (unsigned i = 20; i <= 20 + CACHE_TOP; i++) {
		put_number(i, 10, ENTRY_BODY);
		hit_number(i, i - 19);
	}
	cache_stats(c, &s);
	ck_assert_str_eq(s.top[0].key, "key-30");
	ck_assert_uint_eq(s.top[0].hits, 11);
	ck_assert_uint_eq(s.top[CACHE_TOP - 1].hits, 2);
	cache_stats_done(&s);
}
END_TEST

static Suite *cache_bounds_suite(void)
{
	Suite *s = suite_create("cache_bounds");
	TCase *t = tcase_create("cache_bounds");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, capacity_is_kept);
	tcase_add_test(t, least_recently_used_go_first);
	tcase_add_test(t, absences_cannot_push_bodies_out);
	tcase_add_test(t, too_large_is_refused);
	tcase_add_test(t, nothing_is_stored_without_capacity);
	tcase_add_test(t, smaller_capacity_applies_at_once);
	tcase_add_test(t, what_is_referenced_outlives_its_eviction);
	tcase_add_test(t, memory_is_given_back_when_it_is_time);
	tcase_add_test(t, variants_count_and_evict);
	tcase_add_test(t, entry_costs_two_hundred_bytes_at_most);
	tcase_add_test(t, sweep_frees_what_is_dead_and_nothing_else);
	tcase_add_test(t, sweep_frees_what_is_invalidated_and_of_no_use);
	tcase_add_test(t, sweep_is_a_bounded_piece_each_time);
	tcase_add_test(t, sweep_shrinks_the_table);
	tcase_add_test(t, everything_is_found_while_the_table_changes);
	tcase_add_test(t, table_changes_a_few_buckets_at_a_time);
	tcase_add_test(t, recent_entry_is_not_moved_again);
	tcase_add_test(t, recency_goes_on_when_its_clock_wraps);
	tcase_add_test(t, most_used_are_told);
	tcase_add_test(t, others_follow_the_most_used_that_have_left);
	tcase_add_test(t, who_has_left_is_not_among_the_most_used);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run(cache_bounds_suite());
}
