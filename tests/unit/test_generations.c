#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "provost/generations.h"

static struct generations *g;

static void setup(void)
{
	g = generations_new();
}

static void teardown(void)
{
	generations_free(&g);
	ck_assert_ptr_null(g);
	generations_free(&g);
}

static gen_slot slot_of(const char *tag)
{
	return generations_slot(g, tag, strlen(tag));
}

START_TEST(fresh_until_raised)
{
	gen_slot s = 7;
	uint64_t start = generations_now(g);

	ck_assert(generations_fresh(g, &s, 1, start, 0));
	generations_raise(g, s);
	ck_assert(!generations_fresh(g, &s, 1, start, 0));
	ck_assert(generations_fresh(g, &s, 1, generations_now(g), 0));
}
END_TEST

START_TEST(any_slot_of_many_counts)
{
	gen_slot s[] = {0, 1, 2, 65535};

	for (size_t i = 0; i < ELEMENTSOF(s); i++) {
		uint64_t start = generations_now(g);

		generations_raise(g, 3);
		ck_assert(generations_fresh(g, s, ELEMENTSOF(s), start, 0));
		generations_raise(g, s[i]);
		ck_assert(!generations_fresh(g, s, ELEMENTSOF(s), start, 0));
		for (size_t k = 0; k < ELEMENTSOF(s); k++)
			ck_assert(generations_fresh(g, &s[k], 1, start, 0) == (k != i));
	}
}
END_TEST

START_TEST(epoch_is_carried_by_everything)
{
	gen_slot s = 7;
	uint64_t start = generations_now(g);

	generations_raise_epoch(g);
	ck_assert(!generations_fresh(g, &s, 1, start, 0));
	ck_assert(!generations_fresh(g, NULL, 0, start, 0));
	start = generations_now(g);
	ck_assert(generations_fresh(g, &s, 1, start, 0));
	ck_assert(generations_fresh(g, NULL, 0, start, 0));
	generations_raise(g, s);
	ck_assert(generations_fresh(g, NULL, 0, start, 0));
}
END_TEST

START_TEST(raises_are_counted)
{
	ck_assert_uint_eq(generations_raises(g), 0);
	generations_raise(g, 1);
	generations_raise(g, 1);
	generations_raise_epoch(g);
	ck_assert_uint_eq(generations_raises(g), 3);
}
END_TEST

START_TEST(slot_is_a_keyed_hash_of_the_tag)
{
	struct generations *other = generations_new();
	unsigned same = 0;

	ck_assert_uint_eq(slot_of("orders"), slot_of("orders"));
	for (unsigned i = 0; i < 64; i++) {
		char tag[16];
		size_t n = (size_t)snprintf(tag, sizeof(tag), "orders:id=%u", i);

		same += generations_slot(g, tag, n) == generations_slot(other, tag, n);
	}
	ck_assert_uint_lt(same, 8);
	/* A NUL is a byte like any other. */
	ck_assert_uint_ne(generations_slot(g, "a\0b", 3) + generations_slot(g, "a\0c", 3) * 65536u,
	                  generations_slot(g, "a", 1) * 65537u);
	generations_free(&other);
}
END_TEST

START_TEST(tags_that_share_a_slot_invalidate_each_other)
{
	gen_slot first = slot_of("orders"), s = 0;
	char tag[24];
	uint64_t start = generations_now(g);

	for (unsigned i = 0; i < 10000000; i++) {
		s = generations_slot(g, tag, (size_t)snprintf(tag, sizeof(tag), "t:id=%u", i));
		if (s == first)
			break;
	}
	ck_assert_uint_eq(s, first);
	generations_raise(g, slot_of(tag));
	ck_assert(!generations_fresh(g, &first, 1, start, 0));
}
END_TEST

/* ---- many raisers ---------------------------------------------------------------------------- */

enum { RAISERS = 4, RAISES = 20000, FEW = 3 };

static void *raise_much(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	uint64_t was[FEW] = {0};

	for (unsigned i = 0; i < RAISES; i++) {
		gen_slot s = (gen_slot)((i * 7 + seed) % FEW);
		uint64_t start = generations_now(g);

		generations_raise(g, s);
		ck_assert(!generations_fresh(g, &s, 1, start, 0));
		/* What others raised later must not have been lowered by this. */
		for (gen_slot k = 0; k < FEW; k++)
			ck_assert(was[k] == 0 || !generations_fresh(g, &k, 1, was[k] - 1, 0));
		was[s] = start + 1;
		ck_assert(generations_fresh(g, NULL, 0, start, 0));
	}
	return NULL;
}

START_TEST(slots_only_grow)
{
	pthread_t t[RAISERS];
	gen_slot all[FEW] = {0, 1, 2};
	uint64_t v;

	for (uintptr_t i = 0; i < RAISERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, raise_much, (void *)i), 0);
	for (size_t i = 0; i < RAISERS; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(generations_raises(g), RAISERS * RAISES);
	/* The very last raise left its slot at V. */
	v = generations_now(g);
	ck_assert(!generations_fresh(g, all, FEW, v - 1, 0));
	ck_assert(generations_fresh(g, all, FEW, v, 0));
}
END_TEST

enum { ROUNDS = 100000, RACERS = 2, SPINS = 2000 };

static atomic_uint arrived;

/* All leave within a few nanoseconds, which a pthread_barrier does not give. */
static void meet(unsigned *meetings)
{
	unsigned all = ++*meetings * RACERS;

	atomic_fetch_add(&arrived, 1);
	for (unsigned i = 1; atomic_load(&arrived) < all; i++) {
		if (i % SPINS == 0)
			sched_yield();
	}
}

static void *race(void *arg)
{
	unsigned meetings = 0, low = 0;
	gen_slot s = 5;

	for (unsigned i = 0; i < ROUNDS; i++) {
		meet(&meetings);
		generations_raise(g, s);
		meet(&meetings);
		/* Who was last to advance V may have been first at the slot. */
		low += generations_fresh(g, &s, 1, generations_now(g) - 1, 0);
		meet(&meetings);
	}
	ck_assert_uint_eq(low, 0);
	return NULL;
}

START_TEST(slot_is_at_the_maximum_after_a_race)
{
	pthread_t t[RACERS];

	for (size_t i = 0; i < RACERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, race, NULL), 0);
	for (size_t i = 0; i < RACERS; i++)
		pthread_join(t[i], NULL);
}
END_TEST

struct watched {
	atomic_uint_fast64_t raised; /* raises that have returned */
	atomic_bool done;
};

static void *raise_and_tell(void *arg)
{
	struct watched *w = arg;

	for (unsigned i = 0; i < RAISES; i++) {
		generations_raise(g, 5);
		atomic_store_explicit(&w->raised, i + 1, memory_order_release);
	}
	atomic_store(&w->done, true);
	return NULL;
}

/* With one raiser of one slot its n-th raise is V = n: what began before it is told apart exactly.
 */
START_TEST(raise_that_returned_is_seen_everywhere)
{
	struct watched w = {0};
	gen_slot s = 5;
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, raise_and_tell, &w), 0);
	while (!atomic_load(&w.done)) {
		uint64_t raised = atomic_load_explicit(&w.raised, memory_order_acquire);
		uint64_t now = generations_now(g);

		ck_assert_uint_ge(now, raised);
		ck_assert(raised == 0 || !generations_fresh(g, &s, 1, raised - 1, 0));
	}
	pthread_join(t, NULL);
}
END_TEST

static Suite *generations_suite(void)
{
	Suite *s = suite_create("generations");
	TCase *t = tcase_create("generations");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, fresh_until_raised);
	tcase_add_test(t, any_slot_of_many_counts);
	tcase_add_test(t, epoch_is_carried_by_everything);
	tcase_add_test(t, raises_are_counted);
	tcase_add_test(t, slot_is_a_keyed_hash_of_the_tag);
	tcase_add_test(t, tags_that_share_a_slot_invalidate_each_other);
	tcase_add_test(t, slots_only_grow);
	tcase_add_test(t, slot_is_at_the_maximum_after_a_race);
	tcase_add_test(t, raise_that_returned_is_seen_everywhere);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(generations_suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
