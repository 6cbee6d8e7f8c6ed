#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include "provost/snapshot.h"

enum { ALIVE = 0x600d600d, DEAD = 0x0badbad0 };

struct thing {
	struct snapshot_object object; /* first */
	unsigned state;
	unsigned value, copy; /* equal, or it was torn */
};

static atomic_uint made, freed;

static void thing_free(struct snapshot_object *o)
{
	struct thing *t = (struct thing *)o;

	ck_assert_uint_eq(t->state, ALIVE);
	t->state = DEAD;
	free(t);
	atomic_fetch_add(&freed, 1);
}

static struct thing *thing_new(unsigned value)
{
	struct thing *t = xcalloc(1, sizeof(*t));

	t->object.free = thing_free;
	t->state = ALIVE;
	t->value = t->copy = value;
	atomic_fetch_add(&made, 1);
	return t;
}

static void set(struct snapshot *s, unsigned value)
{
	snapshot_set(s, &thing_new(value)->object);
}

static struct thing *use(struct snapshot *s)
{
	return (struct thing *)snapshot_use(s);
}

START_TEST(nothing_is_there_at_first)
{
	struct snapshot *s = snapshot_new();

	ck_assert_ptr_null(snapshot_use(s));
	snapshot_free(&s);
	ck_assert_ptr_null(s);
	snapshot_free(&s);
}
END_TEST

START_TEST(use_gives_the_latest)
{
	struct snapshot *s = snapshot_new();

	set(s, 1);
	ck_assert_uint_eq(use(s)->value, 1);
	ck_assert_uint_eq(use(s)->value, 1);
	set(s, 2);
	ck_assert_uint_eq(use(s)->value, 2);
	snapshot_set(s, NULL);
	ck_assert_ptr_null(use(s));
	snapshot_free(&s);
	ck_assert_uint_eq(made, 2);
	ck_assert_uint_eq(freed, 2);
}
END_TEST

START_TEST(used_object_outlives_its_replacement)
{
	struct snapshot *s = snapshot_new();
	struct thing *t;

	set(s, 1);
	t = use(s);
	set(s, 2);
	ck_assert_uint_eq(t->state, ALIVE);
	ck_assert_uint_eq(freed, 0);
	use(s);
	ck_assert_uint_eq(freed, 1);
	snapshot_free(&s);
	ck_assert_uint_eq(freed, 2);
}
END_TEST

START_TEST(unread_object_goes_when_replaced)
{
	struct snapshot *s = snapshot_new();

	set(s, 1);
	set(s, 2);
	ck_assert_uint_eq(freed, 1);
	snapshot_free(&s);
	ck_assert_uint_eq(freed, 2);
}
END_TEST

START_TEST(reference_outlives_everything)
{
	struct snapshot *s = snapshot_new();
	struct thing *t;

	set(s, 1);
	t = use(s);
	snapshot_ref(&t->object);
	set(s, 2);
	use(s);
	snapshot_free(&s);
	ck_assert_uint_eq(freed, 1);
	ck_assert_uint_eq(t->value, 1);
	snapshot_unref(&t->object);
	ck_assert_uint_eq(freed, 2);
	snapshot_unref(NULL);
}
END_TEST

START_TEST(snapshots_do_not_mix)
{
	struct snapshot *s[SNAPSHOTS_MAX];

	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
		s[i] = snapshot_new();
		set(s[i], i);
	}
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		ck_assert_uint_eq(use(s[i])->value, i);
	set(s[1], 100);
	ck_assert_uint_eq(use(s[0])->value, 0);
	ck_assert_uint_eq(use(s[1])->value, 100);
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		snapshot_free(&s[i]);
	ck_assert_uint_eq(freed, made);
}
END_TEST

START_TEST(one_snapshot_too_many_aborts)
{
	for (unsigned i = 0; i <= SNAPSHOTS_MAX; i++)
		snapshot_new();
}
END_TEST

static void *use_once(void *arg)
{
	return use(arg) ? arg : NULL;
}

START_TEST(thread_that_exits_lets_go)
{
	struct snapshot *s = snapshot_new();
	pthread_t t;
	void *r;

	set(s, 1);
	ck_assert_int_eq(pthread_create(&t, NULL, use_once, s), 0);
	pthread_join(t, &r);
	ck_assert_ptr_nonnull(r);
	ck_assert_uint_eq(freed, 0);
	snapshot_set(s, NULL);
	ck_assert_uint_eq(freed, 1);
	snapshot_free(&s);
}
END_TEST

struct idler {
	struct snapshot *first, *second;
	pthread_barrier_t barrier;
};

static void *idle(void *arg)
{
	struct idler *i = arg;

	ck_assert_uint_eq(use(i->first)->value, 1);
	pthread_barrier_wait(&i->barrier);
	/* The first snapshot goes, another gets its slot. */
	pthread_barrier_wait(&i->barrier);
	ck_assert_uint_eq(use(i->second)->value, 2);
	return NULL;
}

START_TEST(slot_of_a_snapshot_that_is_gone_can_be_used_again)
{
	struct idler i = {.first = snapshot_new()};
	pthread_t t;

	pthread_barrier_init(&i.barrier, NULL, 2);
	set(i.first, 1);
	ck_assert_int_eq(pthread_create(&t, NULL, idle, &i), 0);
	pthread_barrier_wait(&i.barrier);
	snapshot_free(&i.first);
	ck_assert_uint_eq(freed, 0); /* the idle thread still has it */
	i.second = snapshot_new();
	set(i.second, 2);
	pthread_barrier_wait(&i.barrier);
	pthread_join(t, NULL);
	ck_assert_uint_eq(freed, 1);
	snapshot_free(&i.second);
	ck_assert_uint_eq(freed, 2);
	pthread_barrier_destroy(&i.barrier);
}
END_TEST

/* ---- many readers, one writer ---------------------------------------------------------------- */

enum { READERS = 4, REPLACEMENTS = 5000, KEPT = 8 };

struct stress {
	struct snapshot *s;
	atomic_bool stop;
	atomic_uint latest; /* published last, at least */
	atomic_uint started;
};

static void check_thing(const struct thing *t)
{
	ck_assert_uint_eq(t->state, ALIVE);
	ck_assert_uint_eq(t->value, t->copy);
}

/* Reads, and keeps some of what it read as a job would. */
static void *read_much(void *arg)
{
	struct stress *x = arg;
	struct thing *kept[KEPT] = {NULL};
	unsigned last = 0;

	atomic_fetch_add(&x->started, 1);
	for (unsigned i = 0; !atomic_load(&x->stop); i++) {
		unsigned at_least = atomic_load(&x->latest);
		struct thing *t = use(x->s);

		check_thing(t);
		/* Never older than what was published before we looked, never back in time. */
		ck_assert_uint_ge(t->value, at_least);
		ck_assert_uint_ge(t->value, last);
		last = t->value;
		if (i % 16 == 0) {
			struct thing **slot = &kept[i / 16 % KEPT];

			if (*slot) {
				check_thing(*slot);
				snapshot_unref(&(*slot)->object);
			}
			snapshot_ref(&t->object);
			*slot = t;
		}
	}
	for (size_t i = 0; i < KEPT; i++) {
		if (kept[i])
			snapshot_unref(&kept[i]->object);
	}
	return NULL;
}

START_TEST(readers_and_a_writer)
{
	struct stress x = {.s = snapshot_new()};
	pthread_t t[READERS];

	set(x.s, 0);
	for (size_t i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, read_much, &x), 0);
	while (atomic_load(&x.started) < READERS)
		sched_yield();
	for (unsigned v = 1; v <= REPLACEMENTS; v++) {
		set(x.s, v);
		atomic_store(&x.latest, v);
		if (v % 64 == 0)
			sched_yield();
	}
	atomic_store(&x.stop, true);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	snapshot_free(&x.s);
	ck_assert_uint_eq(made, REPLACEMENTS + 1);
	ck_assert_uint_eq(freed, made);
}
END_TEST

/* Threads that come and go while the object is replaced: what they cached goes with them. */
START_TEST(readers_that_come_and_go)
{
	struct snapshot *s = snapshot_new();

	set(s, 0);
	for (unsigned round = 1; round <= 100; round++) {
		pthread_t t[READERS];

		for (size_t i = 0; i < READERS; i++)
			ck_assert_int_eq(pthread_create(&t[i], NULL, use_once, s), 0);
		set(s, round);
		for (size_t i = 0; i < READERS; i++)
			pthread_join(t[i], NULL);
		ck_assert_uint_eq(freed, round);
	}
	snapshot_free(&s);
	ck_assert_uint_eq(freed, made);
}
END_TEST

static Suite *snapshot_suite(void)
{
	Suite *s = suite_create("snapshot");
	TCase *t = tcase_create("snapshot");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, nothing_is_there_at_first);
	tcase_add_test(t, use_gives_the_latest);
	tcase_add_test(t, used_object_outlives_its_replacement);
	tcase_add_test(t, unread_object_goes_when_replaced);
	tcase_add_test(t, reference_outlives_everything);
	tcase_add_test(t, snapshots_do_not_mix);
	tcase_add_test_raise_signal(t, one_snapshot_too_many_aborts, SIGABRT);
	tcase_add_test(t, thread_that_exits_lets_go);
	tcase_add_test(t, slot_of_a_snapshot_that_is_gone_can_be_used_again);
	tcase_add_test(t, readers_and_a_writer);
	tcase_add_test(t, readers_that_come_and_go);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(snapshot_suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
