/*
 * Everything at once, for ThreadSanitizer and AddressSanitizer, and for the one promise that
 * matters most: nobody is given an entry as fresh that was begun before a raise of its tag that had
 * returned before the lookup began.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "cache_fixture.h"

enum {
	READERS = 3,
	FILLERS = 2,
	RAISERS = 2,
	ATTACHERS = 2,
	KEYS = 300,
	TAGS = 8,
	OPERATIONS = 150000, /* of each reader */
};

/* ck_assert writes to a file each time. */
#define MUST(e)                                                                                    \
	do {                                                                                       \
		if (!(e))                                                                          \
			ck_abort_msg("%s", #e);                                                    \
	} while (0)

/* What raisers have made known: the value of V that a raise which has returned had at least. */
static _Atomic uint64_t published[TAGS], published_epoch;
static atomic_uint readers_left;
static _Atomic uint64_t fresh, stored, attached;

struct content {
	uint64_t start;
	uint32_t id, copy; /* equal, or it was torn */
};

struct worker {
	pthread_t thread;
	uint64_t state;
};

static uint64_t rnd(struct worker *w, uint64_t bound)
{
	uint64_t z = w->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint64_t)((unsigned __int128)(z ^ z >> 31) * bound >> 64);
}

static bool going_on(void)
{
	return atomic_load_explicit(&readers_left, memory_order_relaxed) > 0;
}

static struct cache_key key_of(char *text, size_t n, uint32_t id)
{
	return key_number(text, n, id);
}

static gen_slot tag_of(uint32_t id)
{
	return (gen_slot)(id % TAGS);
}

static void check_content(const struct entry *e, uint32_t id, uint64_t at_least)
{
	struct content content;
	size_t len;
	const void *body = entry_body(e, &len);

	MUST(len >= sizeof(content));
	memcpy(&content, body, sizeof(content));
	MUST(content.id == id && content.copy == id);
	MUST(content.start >= at_least);
}

static void check_variant(const struct entry *e, enum entry_coding coding)
{
	size_t len;
	const unsigned char *bytes = entry_variant(e, coding, &len);

	if (!bytes)
		return;
	for (size_t i = 0; i < len; i++)
		MUST(bytes[i] == (unsigned char)len);
}

static void look_up(struct worker *w, uint64_t now_ms)
{
	uint32_t id = (uint32_t)MIN(rnd(w, KEYS), rnd(w, KEYS));
	/* Before the lookup begins. */
	uint64_t at_least = MAX(atomic_load_explicit(&published[tag_of(id)], memory_order_acquire),
	                        atomic_load_explicit(&published_epoch, memory_order_acquire));
	struct cache_found f;
	char text[32];

	cache_get(c, key_of(text, sizeof(text), id), &rules, now_ms, &f);
	if (f.state == CACHE_MISS && f.stale &&
	    !cache_get_stale(c, key_of(text, sizeof(text), id), &rules, now_ms, &f))
		return;
	if (!f.entry)
		return;
	check_content(f.entry, id, f.state == CACHE_FRESH || f.state == CACHE_SWR ? at_least : 0);
	check_variant(f.entry, CODING_GZIP);
	check_variant(f.entry, CODING_BR);
	if (f.state == CACHE_FRESH)
		atomic_fetch_add_explicit(&fresh, 1, memory_order_relaxed);
	entry_unref(&f.entry);
}

/* Whoever schedules the threads, the run has been where it was meant to go. */
static bool is_enough(void)
{
	return fresh > 100 && stored > 100 && attached > 10;
}

static void *reads(void *arg)
{
	for (unsigned i = 0; i < OPERATIONS || !is_enough(); i++) {
		look_up(arg, T0 + i % 2000);
		if (i % 256 == 0)
			sched_yield();
	}
	atomic_fetch_sub(&readers_left, 1);
	return NULL;
}

static void *fills(void *arg)
{
	static _Thread_local unsigned char body[4000];
	struct worker *w = arg;

	while (going_on()) {
		uint32_t id = (uint32_t)MIN(rnd(w, KEYS), rnd(w, KEYS));
		struct content content = {.start = generations_now(g), .id = id, .copy = id};
		gen_slot slot = tag_of(id);
		char text[32];
		struct entry_parts p = {
		    .key = key_of(text, sizeof(text), id),
		    .body = body,
		    .body_len = sizeof(content) + rnd(w, 3000),
		    .slot = &slot,
		    .slots = 1,
		    .start = content.start,
		    .started_ms = T0 + rnd(w, 1000),
		};
		struct entry *e;
		int r;

		memcpy(body, &content, sizeof(content));
		e = entry_new(&p);
		MUST(e != NULL);
		if (rnd(w, 8) == 0)
			sched_yield();
		r = cache_put(c, e, &rules, p.started_ms + 1);
		MUST(r == 0 || r == -ESTALE || r == -E2BIG);
		if (r == 0)
			atomic_fetch_add_explicit(&stored, 1, memory_order_relaxed);
		entry_unref(&e);
	}
	return NULL;
}

static void publish(_Atomic uint64_t *to, uint64_t value)
{
	uint64_t was = atomic_load(to);

	while (was < value && !atomic_compare_exchange_weak(to, &was, value))
		;
}

static void *raises(void *arg)
{
	struct worker *w = arg;

	while (going_on()) {
		gen_slot tag = (gen_slot)rnd(w, TAGS);
		uint64_t before = generations_now(g);

		if (rnd(w, 50) == 0) {
			generations_raise_epoch(g);
			publish(&published_epoch, before + 1);
		} else {
			generations_raise(g, tag);
			publish(&published[tag], before + 1);
		}
		for (uint64_t i = rnd(w, 20); i > 0; i--)
			sched_yield();
	}
	return NULL;
}

static void *attaches(void *arg)
{
	struct worker *w = arg;

	while (going_on()) {
		enum entry_coding coding = (enum entry_coding)rnd(w, CODING_COUNT);
		char text[32];
		struct entry *e =
		    cache_peek(c, key_of(text, sizeof(text), (uint32_t)rnd(w, KEYS)), &rules, T0);

		if (e && cache_claim_variant(c, e, coding)) {
			size_t len = 1 + rnd(w, 2000);
			void *bytes = rnd(w, 4) ? xcalloc(1, len) : NULL;

			if (bytes)
				memset(bytes, (unsigned char)len, len);
			cache_attach(c, e, coding, bytes, len);
			atomic_fetch_add_explicit(&attached, 1, memory_order_relaxed);
		}
		entry_unref(&e);
	}
	return NULL;
}

static void *sweeps(void *arg)
{
	struct worker *w = arg;

	while (going_on()) {
		struct cache_stats s;

		cache_sweep(c, T0 + rnd(w, 3000));
		cache_stats(c, &s);
		for (size_t i = 0; i < CACHE_TOP && s.top[i].key; i++)
			MUST(strncmp(s.top[i].key, "key-", 4) == 0);
		cache_stats_done(&s);
		sched_yield();
	}
	return NULL;
}

static void *resizes(void *arg)
{
	struct worker *w = arg;
	struct cache_options o = options;

	while (going_on()) {
		o.capacity = (int64_t)(64 << 10 << rnd(w, 5));
		o.negative_ttl_ms = (int64_t)rnd(w, 1000);
		cache_configure(c, &o);
		for (uint64_t i = rnd(w, 100); i > 0; i--)
			sched_yield();
	}
	return NULL;
}

static size_t start(struct worker *w, size_t at, size_t n, void *(*run_it)(void *))
{
	for (size_t i = 0; i < n; i++) {
		w[at + i].state = at + i + 1;
		ck_assert_int_eq(pthread_create(&w[at + i].thread, NULL, run_it, &w[at + i]), 0);
	}
	return at + n;
}

START_TEST(everything_at_once)
{
	struct worker w[READERS + FILLERS + RAISERS + ATTACHERS + 2];
	size_t n = 0;

	rules = (struct freshness){
	    .ttl_ms = 1500, .swr_ms = 200, .max_stale_ms = 100, .stale_if_error_ms = 500};
	atomic_store(&readers_left, READERS);
	n = start(w, n, FILLERS, fills);
	n = start(w, n, RAISERS, raises);
	n = start(w, n, ATTACHERS, attaches);
	n = start(w, n, 1, sweeps);
	n = start(w, n, 1, resizes);
	n = start(w, n, READERS, reads);
	for (size_t i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
	ck_assert_uint_gt(fresh, 100);
	ck_assert_uint_gt(stored, 100);
	ck_assert_uint_gt(attached, 10);
	ck_assert_uint_gt(stats().evictions, 0);
	ck_assert_uint_gt(stats().invalidations, 0);
	recount();
	cache_configure(c, &options);
	ck_assert_uint_le(stats().bytes, (uint64_t)options.capacity);
	recount();
}
END_TEST

static void threads_setup(void)
{
	fixture(MIB, 4);
}

static Suite *cache_threads_suite(void)
{
	Suite *s = suite_create("cache_threads");
	TCase *t = tcase_create("cache_threads");

	tcase_set_timeout(t, 600);
	tcase_add_checked_fixture(t, threads_setup, teardown);
	tcase_add_test(t, everything_at_once);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run(cache_threads_suite());
}
