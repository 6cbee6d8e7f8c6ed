/*
 * cache_fixture: a cache to try things on, for the tests of the cache. Time is what they say it is.
 */
#ifndef CACHE_FIXTURE_H
#define CACHE_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <string.h>

#include "../../src/cache/internal.h"

enum { T0 = 1000000, MIB = 1 << 20 };

static struct generations *g;
static struct cache *c;
static struct cache_options options;
static struct freshness rules; /* of what the helpers below put and get */

static void fixture(int64_t capacity, unsigned shards)
{
	options = (struct cache_options){
	    .capacity = capacity,
	    .shards = shards,
	    .policy = (char *)(uintptr_t) "lru",
	    .max_entry = 4 * MIB,
	    .negative_ttl_ms = 100,
	};
	rules = (struct freshness){.ttl_ms = 1000};
	g = generations_new();
	c = cache_new(&options, g);
}

static inline void setup(void)
{
	fixture(16 * MIB, 1);
}

static inline void teardown(void)
{
	cache_free(&c);
	ck_assert_ptr_null(c);
	generations_free(&g);
}

static inline struct cache_key key(const char *text)
{
	return cache_key(c, text, strlen(text));
}

static inline struct cache_key key_number(char *text, size_t n, unsigned i)
{
	snprintf(text, n, "key-%u", i);
	return key(text);
}

/* Begun at T0 and now; without jitter, so that its ttl ends when it is said to. */
static inline struct entry *make_sized(enum entry_kind kind, struct cache_key k, const char *body,
                                       size_t len, gen_slot slot)
{
	struct entry_parts p = {
	    .kind = kind,
	    .key = k,
	    .body = body,
	    .body_len = len,
	    .etag = "0123456789abcde",
	    .slot = &slot,
	    .slots = 1,
	    .start = generations_now(g),
	    .started_ms = T0,
	};
	struct entry *e = entry_new(&p);

	ck_assert_ptr_nonnull(e);
	e->shave = 0;
	return e;
}

static inline struct entry *make(const char *text, const char *body, gen_slot slot)
{
	return make_sized(ENTRY_BODY, key(text), body, strlen(body), slot);
}

static inline int put_and_forget(struct entry *e, uint64_t now_ms)
{
	int r = cache_put(c, e, &rules, now_ms);

	entry_unref(&e);
	return r;
}

static inline int put(const char *text, const char *body, gen_slot slot)
{
	return put_and_forget(make(text, body, slot), T0);
}

static inline int put_absence(const char *text)
{
	return put_and_forget(make_sized(ENTRY_ABSENCE, key(text), NULL, 0, 1), T0);
}

/* Of so many bytes. */
static inline int put_number(unsigned i, size_t len, enum entry_kind kind)
{
	static const char zeros[4 * MIB];
	char text[32];

	return put_and_forget(make_sized(kind, key_number(text, sizeof(text), i), zeros, len, 1),
	                      T0);
}

/* The reference is given back: what is found is only looked at. */
static inline struct cache_found get(const char *text, uint64_t now_ms)
{
	struct cache_found f;
	struct entry *e;

	cache_get(c, key(text), &rules, now_ms, &f);
	ck_assert((f.state == CACHE_MISS) == (f.entry == NULL));
	ck_assert(!f.refresh || f.state == CACHE_SWR);
	ck_assert(f.state == CACHE_MISS || (!f.stale && !f.expired));
	e = f.entry;
	entry_unref(&e);
	return f;
}

static inline enum cache_state state(const char *text, uint64_t now_ms)
{
	return get(text, now_ms).state;
}

static inline bool stale(const char *text, uint64_t now_ms)
{
	struct cache_found f;
	bool found = cache_get_stale(c, key(text), &rules, now_ms, &f);

	if (found)
		entry_unref(&f.entry);
	return found;
}

/* Whatever its state. */
static inline bool is_there(unsigned i)
{
	char text[32];
	struct cache_key k = key_number(text, sizeof(text), i);
	struct shard *s = cache_shard(c, k.hash);

	return table_find(&s->table, k) != NULL;
}

static inline struct cache_stats stats(void)
{
	struct cache_stats s;

	cache_stats(c, &s);
	cache_stats_done(&s);
	return s;
}

/* What the shards count agrees with what is in them. */
static inline void recount_list(const struct recency *r, int64_t *bytes, size_t *count)
{
	const struct entry *newer = NULL;
	size_t n = 0;

	for (const struct entry *e = r->newest; e; newer = e, e = e->older, n++) {
		struct cache_key k = {e->hash, entry_key(e), e->key_len};

		ck_assert_ptr_eq(e->newer, newer);
		ck_assert(e->flags & FLAG_LINKED);
		ck_assert_ptr_eq(table_find(&cache_shard(c, e->hash)->table, k), e);
		*bytes += entry_charge(e);
	}
	ck_assert_ptr_eq(r->oldest, newer);
	ck_assert_uint_eq(r->count, n);
	*count += n;
}

static inline void recount(void)
{
	for (unsigned i = 0; i < c->shards; i++) {
		struct shard *s = &c->shard[i];
		int64_t bytes = 0;
		size_t count = 0;

		recount_list(&s->absences, &bytes, &count);
		ck_assert_int_eq(s->absence_bytes, bytes);
		recount_list(&s->bodies, &bytes, &count);
		ck_assert_int_eq(s->bytes, bytes);
		ck_assert_uint_eq(s->table.count, count);
		ck_assert_int_eq(s->table.bytes, allocated(s->table.bucket));
		ck_assert_int_eq(s->table.old_bytes, allocated(s->table.old));
	}
}

static inline int run(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
