/*
 * engine_fixture: an engine with its pool, cache and relay, and requests that ask it for things.
 *
 * One engine at a time. A request has an endpoint of its own unless it shares another's.
 */
#ifndef PROVOST_TESTS_ENGINE_FIXTURE_H
#define PROVOST_TESTS_ENGINE_FIXTURE_H

#include <errno.h>

#include "real_pg.h"

#include "provost/conn.h"
#include "provost/engine.h"
#include "provost/key.h"
#include "provost/listener.h"
#include "provost/log.h"
#include "provost/pool.h"
#include "provost/tags.h"

#define MAY_BE_UNUSED __attribute__((unused))

static struct relay *relay;
static struct pool *pool;
static struct generations *generations;
static struct cache *cache;
static struct engine *engine;
static struct listener *listener; /* NULL unless start_listener was called */

/* ---- helpers ------------------------------------------------------------------------- */

/* A request of a test, for an endpoint of its own unless it shares another's, and what became of
 * it. */
struct asked {
	struct waiter waiter;
	struct endpoint endpoint;
	struct catalog catalog;
	struct buf key;
	atomic_uint done; /* calls; a waiter has exactly one */
	unsigned turn;    /* of all, in which it was done */
};

MAY_BE_UNUSED static void count_done(struct waiter *w)
{
	static atomic_uint turns;
	struct asked *a = (struct asked *)((char *)w - offsetof(struct asked, waiter));
	a->turn = atomic_fetch_add(&turns, 1);
	atomic_fetch_add(&a->done, 1);
}

static char endpoint_name[] = "test";

MAY_BE_UNUSED static void nothing_to_free(struct snapshot_object *o)
{
	(void)o;
}

MAY_BE_UNUSED static void prepare(struct asked *a, const char *text, int64_t timeout_ms)
{
	static atomic_uint_fast64_t fingerprints;
	*a = (struct asked){0};
	a->endpoint.name = endpoint_name;
	a->endpoint.returns = RETURNS_JSON;
	a->endpoint.timeout_ms = timeout_ms;
	a->endpoint.cache.off = true;
	a->endpoint.freshness = (struct freshness){.ttl_ms = 600000};
	a->endpoint.fingerprint = 1 + atomic_fetch_add(&fingerprints, 1);
	a->endpoint.stmt = (struct stmt){.sql = xstrdup(text), .sql_len = strlen(text)};
	stmt_seal(&a->endpoint.stmt);
	key_seal(&a->endpoint);
	const struct values none = {0};
	const struct key_caller nobody = {0};
	ck_assert_int_eq(key_build(&a->endpoint, &none, &nobody, &a->key), 0);
	atomic_init(&a->catalog.object.refs, 1);
	a->catalog.object.free = nothing_to_free;
	static atomic_uint_fast64_t tickets;
	a->waiter =
	    (struct waiter){.done = count_done, .ticket = 1 + atomic_fetch_add(&tickets, 1)};
}

MAY_BE_UNUSED static struct ask what(struct asked *a)
{
	return (struct ask){
	    .catalog = &a->catalog,
	    .endpoint = &a->endpoint,
	    .key = cache_key(cache, a->key.data, a->key.len),
	    .request_id = "r",
	};
}

/* Submits it as a request for what `other` asks for. */
MAY_BE_UNUSED static int submit_for(struct asked *a, struct asked *other)
{
	const struct ask w = what(other);
	return engine_submit(engine, &w, &a->waiter);
}

MAY_BE_UNUSED static int submit(struct asked *a, const char *text, int64_t timeout_ms)
{
	prepare(a, text, timeout_ms);
	return submit_for(a, a);
}

MAY_BE_UNUSED static const struct answer *answer_of(const struct asked *a)
{
	ck_assert_ptr_nonnull(a->waiter.job);
	return &a->waiter.job->answer;
}

MAY_BE_UNUSED static void end(struct asked *a)
{
	job_unref(&a->waiter.job);
	stmt_done(&a->endpoint.stmt);
	free(a->endpoint.key_prefix);
	buf_done(&a->key);
}

MAY_BE_UNUSED static bool is_done(struct asked *a)
{
	return atomic_load(&a->done) > 0;
}

/* Asks, waits, and gives the outcome; the answer stays with `a`. */
MAY_BE_UNUSED static enum outcome ask(struct asked *a, const char *text, int64_t timeout_ms)
{
	ck_assert_int_eq(submit(a, text, timeout_ms), 0);
	WAIT_UNTIL(is_done(a));
	return answer_of(a)->outcome;
}

MAY_BE_UNUSED static struct engine_stats stats(void)
{
	struct engine_stats s;
	engine_stats(engine, &s);
	return s;
}

MAY_BE_UNUSED static struct engine_options options(unsigned threads, unsigned queue)
{
	return (struct engine_options){
	    .threads = threads,
	    .queue = queue,
	    .queue_timeout_ms = 60000,
	    .statement_timeout_ms = 30000,
	};
}

MAY_BE_UNUSED static void start(const char *url, unsigned pool_max, int64_t acquire_ms,
                                const struct engine_options *o)
{
	struct pool_options p = {.url = (char *)(uintptr_t)url,
	                         .max = pool_max,
	                         .acquire_timeout_ms = acquire_ms,
	                         .prepare = true};
	pool = pool_new(&p);
	ck_assert_int_eq(pool_start(pool), 0);
	engine = engine_new(o, pool, cache, generations, listener);
	ck_assert_int_eq(engine_start(engine), 0);
}

MAY_BE_UNUSED static void start_usual(void)
{
	struct engine_options o = options(2, 100);
	start(relay->url, 2, PATIENCE_MS, &o);
}

static char policy[] = "lru";

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	pg_open();
	relay = relay_start(0);
	engine = NULL;
	pool = NULL;
	listener = NULL;
	const struct cache_options o = {.capacity = 16 << 20,
	                                .shards = 4,
	                                .policy = policy,
	                                .max_entry = 1 << 20,
	                                .negative_ttl_ms = 5000};
	generations = generations_new();
	cache = cache_new(&o, generations);
}

static void teardown(void)
{
	if (engine)
		engine_stop(engine, 0);
	if (pool)
		pool_stop(pool);
	if (listener)
		listener_stop(listener);
	listener_free(&listener);
	engine_free(&engine);
	pool_free(&pool);
	cache_free(&cache);
	generations_free(&generations);
	relay_stop(&relay);
	pg_close();
}

#endif
