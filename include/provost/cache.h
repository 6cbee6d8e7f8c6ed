/*
 * cache: finished answers in memory, sharded and lock-striped; knows no SQL and no HTTP.
 *
 * An entry is immutable and counted: key, body, tags' slots in one allocation, and encoded variants
 * of the body that are attached once, later. Whoever got an entry serves its bytes in place and
 * gives the reference back; eviction, replacement and invalidation never touch what is referenced.
 *
 * A key's shard is chosen by its keyed hash (SipHash); a match always compares the whole key. A
 * shard has one lock, held for one lookup, one insertion with its evictions, or a bounded piece of
 * a sweep; bodies are copied, and memory of entries is allocated and freed, outside of it. All
 * functions may be called from any thread; `now_ms` is the caller's clock (clock_ms), monotonic.
 *
 * Bounds: `capacity` bytes, counted as the allocator counts them (key, body, variants, metadata,
 * hash tables), divided evenly among the shards; a shard over its share evicts the entries that
 * have not been used for the longest time. Absences (an answer of 404) have a sixteenth of that to
 * themselves and are evicted among themselves. An entry larger than `max_entry`, or than a fourth
 * of its shard's share, is refused.
 */
#ifndef PROVOST_CACHE_H
#define PROVOST_CACHE_H

#include "provost/base.h"
#include "provost/freshness.h"
#include "provost/generations.h"

struct cache;
struct entry;

enum {
	CACHE_SHARDS_MAX = 1024, /* a power of two, as `shards` must be */
	CACHE_KEY_MAX = 1 << 20, /* bytes */
	CACHE_SLOTS_MAX = 256,   /* of one entry */
	CACHE_TOP = 10,          /* of the report */
	CACHE_REFRESH_MS = 1000, /* between two callers told to refresh one entry */
	CACHE_SWEEP_TURN = 1024, /* calls of cache_sweep that look at everything once */
};

/* Sets malloc up for what a cache does to it: one arena, and large blocks mapped one by one. Once,
 * by main, before there are threads. */
void cache_tune_allocator(void);

struct cache_options {
	int64_t capacity;  /* bytes */
	unsigned shards;   /* a power of two up to CACHE_SHARDS_MAX; fixed at cache_new */
	char *policy;      /* "lru" */
	int64_t max_entry; /* bytes of an entry with its variants */
	int64_t negative_ttl_ms;
};

/* Copies the options; the generations are borrowed. Exits when out of memory. */
struct cache *cache_new(const struct cache_options *o, struct generations *g);
/* No other thread may use it any more; entries still referenced live on. */
void cache_free(struct cache **c);
/* Applies everything but `shards`, to what is stored as well, but for max_entry. A smaller capacity
 * evicts at once, a shard at a time, in bounded pieces per lock. One caller at a time. */
void cache_configure(struct cache *c, const struct cache_options *o);

/* ---- keys ---------------------------------------------------------------------------- */

struct cache_key {
	uint64_t hash;
	const void *bytes; /* borrowed */
	size_t len;
};

struct cache_key cache_key(const struct cache *c, const void *bytes, size_t len);

/* ---- entries ------------------------------------------------------------------------- */

enum entry_kind {
	ENTRY_BODY,
	ENTRY_ABSENCE, /* there is no such thing: no body, never stale, fresh for negative_ttl (or
	                  the endpoint's ttl, when that is less) */
};

/* What an entry is made of; everything is copied. */
struct entry_parts {
	enum entry_kind kind;
	struct cache_key key;
	const void *body;
	size_t body_len;
	unsigned char etag[16]; /* hash of the body; opaque here */
	const gen_slot *slot;   /* of its tags; at most CACHE_SLOTS_MAX */
	size_t slots;
	uint64_t start;      /* generations_now before its statement was sent */
	uint64_t started_ms; /* clock_ms at that moment */
};

/* One reference, the caller's. NULL when out of memory. */
struct entry *entry_new(const struct entry_parts *p);
void entry_ref(struct entry *e);
/* Sets `*e` to NULL. */
void entry_unref(struct entry **e);
/* The same as a callback: `e` is a struct entry. */
void entry_done(void *e);
#define _cleanup_entry_ _cleanup_(entry_unref)

enum entry_kind entry_kind(const struct entry *e);
const void *entry_body(const struct entry *e, size_t *ret_len);
const unsigned char *entry_etag(const struct entry *e);
/* What it is as fresh as: as in entry_parts. Valid for as long as the entry. */
const gen_slot *entry_slots(const struct entry *e, size_t *ret_slots);
uint64_t entry_start(const struct entry *e);
uint64_t entry_started_ms(const struct entry *e);

/* Encodings of a body (RFC 9110, section 8.4.1). */
enum entry_coding { CODING_GZIP, CODING_BR, CODING_COUNT };
/* The encoded body, or NULL while there is none. Valid for as long as the entry. */
const void *entry_variant(const struct entry *e, enum entry_coding coding, size_t *ret_len);

/* The number of answers that are being sent from this entry: the http module's, under its lock. */
unsigned *entry_senders(struct entry *e);

/* ---- looking up ---------------------------------------------------------------------- */

enum cache_state {
	CACHE_MISS, /* nothing that may be served now; perhaps under stale-if-error */
	CACHE_FRESH,
	CACHE_SWR,       /* past its ttl, and not invalidated */
	CACHE_MAX_STALE, /* invalidated, and begun less than max_stale ago */
};

struct cache_found {
	enum cache_state state;
	struct entry *entry; /* a reference, the caller's; NULL on a miss */
	int64_t ttl_ms;      /* left; 0 or less: past, or (then 0 at most) invalidated */
	int64_t age_ms;      /* since its statement was sent */
	bool refresh; /* CACHE_SWR: this caller starts the refresh. True for one caller per entry
	                 and CACHE_REFRESH_MS. */
	bool stale;   /* CACHE_MISS: cache_get_stale would find something */
	bool expired; /* CACHE_MISS: the key is there, but its time has passed or it was invalidated
	               */
};

/* Looks the key up, for a request that is to be counted as a hit or a miss. A fresh entry is
 * younger than its ttl (shortened by up to a twentieth, at random, once per entry, so that what was
 * stored together does not expire together) and none of its tags was raised since its start. */
void cache_get(struct cache *c, struct cache_key key, const struct freshness *f, uint64_t now_ms,
               struct cache_found *ret);

/* What may answer a request for which the database has failed: the entry, whatever became of it, up
 * to `stale_if_error` past its ttl. False, and nothing in `ret`, when there is none; always so for
 * absences, and where stale_if_error is 0. `state` is what cache_get would have said. Counted as a
 * stale answer. */
bool cache_get_stale(struct cache *c, struct cache_key key, const struct freshness *f,
                     uint64_t now_ms, struct cache_found *ret);

/* A reference to a fresh entry, or NULL; counts nothing and moves nothing. */
struct entry *cache_peek(struct cache *c, struct cache_key key, const struct freshness *f,
                         uint64_t now_ms);

/* ---- storing ------------------------------------------------------------------------- */

/* Stores the entry, replacing the key's, and takes a reference of its own. 0, also when the key's
 * was begun after this one, and stays; -ESTALE: one of its tags was raised since its start (and
 * max_stale does not allow for it); -E2BIG: larger than may be stored; -ECANCELED: with these rules
 * it could never be served. An entry is stored at most once. */
int cache_put(struct cache *c, struct entry *e, const struct freshness *f,
              uint64_t now_ms) _must_check_;

/* Whether an entry of that many bytes of key and body is not too large now: to spare the copy. What
 * is too large is counted as refused. */
bool cache_would_store(struct cache *c, size_t bytes);

/* Whether this caller is to make the variant: true for one caller per entry and coding, while the
 * entry is in the cache. Whoever it is calls cache_attach or cache_unclaim_variant. */
bool cache_claim_variant(struct cache *c, struct entry *e, enum entry_coding coding);
/* Gives a claim back: somebody else may make it. */
void cache_unclaim_variant(struct cache *c, struct entry *e, enum entry_coding coding);
/* Attaches what the one who claimed made: `bytes`, allocated with malloc, is taken over. NULL: it
 * is of no use (no smaller), and not to be tried again. Dropped when the entry has left the cache
 * meanwhile, or would become larger than may be stored. */
void cache_attach(struct cache *c, struct entry *e, enum entry_coding coding, void *bytes,
                  size_t len);

/* ---- keeping ------------------------------------------------------------------------- */

/* Looks at a bounded part of the entries and frees those that can never be served again, by the
 * rules that they were put with. Janitor, every 10 ms: a turn over everything takes ten seconds. */
void cache_sweep(struct cache *c, uint64_t now_ms);

/* Gives free memory back to the system when the process is a quarter larger than the capacity and
 * has grown by an eighth of it (16 MiB at least) since this was last done; every ten seconds at
 * most, or more often where it is larger by three eighths. Whoever allocates meanwhile may wait,
 * 0.12 ms per MiB of heap. Janitor, every 100 ms. */
void cache_trim_memory(struct cache *c, uint64_t now_ms);

struct cache_top {
	char *key; /* the key's bytes, owned by whoever asked */
	size_t key_len;
	uint64_t hits;
};

struct cache_stats {
	/* In force. */
	int64_t capacity, max_entry, negative_ttl_ms;
	unsigned shards;
	/* Now. */
	uint64_t entries, absences;
	uint64_t bytes; /* of the budget */
	/* Since the start. */
	uint64_t hits; /* of them: */
	uint64_t swr, max_stale;
	uint64_t misses; /* of them, answered by cache_get_stale: */
	uint64_t stale_if_error;
	uint64_t stores, evictions;
	uint64_t expirations;            /* entries found, or swept, past their time */
	uint64_t invalidations;          /* entries found with a raised tag */
	uint64_t refused;                /* -E2BIG */
	uint64_t outdated;               /* -ESTALE */
	struct cache_top top[CACHE_TOP]; /* most hits first; unused ones have no key */
};
/* Sums the shards up, a lock at a time. cache_stats_done frees what it holds. */
void cache_stats(struct cache *c, struct cache_stats *ret);
void cache_stats_done(struct cache_stats *s);

#endif
