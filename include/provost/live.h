/*
 * live: reads GET endpoints for those who watch them.
 *
 * Between the hub, which knows who watches what, and catalogue, cache and engine. A path is looked
 * up once on behalf of an identity, by the same rules as over HTTP; then it is read, out of the
 * cache or by the engine, as often as what it was read from has changed. Requests go before: what
 * is read anew has the engine's background lane and its quota.
 *
 * All functions may be called from any thread and none blocks; a live_path and a live_read have one
 * owner at a time.
 */
#ifndef PROVOST_LIVE_H
#define PROVOST_LIVE_H

#include "provost/buf.h"
#include "provost/generations.h"
#include "provost/identity.h"
#include "provost/job.h"

struct cache;
struct engine;
struct live;
struct snapshot;

enum {
	LIVE_PATH_MAX = 2048,    /* bytes of a path with its query */
	LIVE_BODY_MAX = 4 << 20, /* bytes of a body: larger ones are read over HTTP (413) */
	LIVE_DETAIL_MAX = 512,   /* bytes */
};

/* Borrows all of it. `catalog`: of struct catalog. Exits when out of memory. */
struct live *live_new(struct snapshot *catalog, struct cache *cache, struct engine *engine,
                      struct generations *generations);
void live_free(struct live **l);

/* ---- paths --------------------------------------------------------------------------- */

/* What a path is for somebody. */
struct live_path {
	struct catalog *catalog; /* a reference */
	const struct endpoint *endpoint;
	struct buf key; /* the cache's: equal for all whose answer is the same */
};

/* Why there is none, as over HTTP. */
struct live_problem {
	unsigned status;
	char detail[LIVE_DETAIL_MAX];
};

/* Looks the path (`/api/admin/courses?page=2`) up on behalf of `i`. 0; or -EINVAL with a problem:
 * 400 for parameters (naming all that are wrong), 403, 404, 405, 414, 422 for what nothing would
 * tell changes of (no ttl and nothing that it depends on, or tables without triggers), 503 while
 * there is no catalogue or memory. */
int live_find(struct live *l, const char *path, size_t n, const struct identity *i,
              struct live_path *ret, struct live_problem *ret_problem) _must_check_;
void live_path_done(struct live_path *p);

/* Whether the path was found in the catalogue that is in force, and the changes of its tables are
 * still told: if not, it is to be found anew, with the identity of each who watches it. */
bool live_path_is_current(struct live *l, const struct live_path *p);
/* For how long an answer may be shown, in milliseconds; 0: until something that it is made from
 * changes. What is made from tables has no such time: they tell, and hundreds of idle dashboards
 * are not to ask again and again for what is known to be as it was. */
int64_t live_path_ttl_ms(const struct live_path *p);

/* ---- reading ------------------------------------------------------------------------- */

enum live_urgency {
	LIVE_FIRST,   /* somebody waits for it: as a request */
	LIVE_REFRESH, /* in the background */
};

struct live_read {
	/* Set by the caller. Called once for every read that was accepted, perhaps before live_read
	 * returns; on any thread, with no lock held. */
	void (*done)(struct live_read *r);

	/* The answer: constant from `done` on, valid until live_read_done. */
	unsigned status;    /* 200: there is a body; or as over HTTP; 413 */
	const char *detail; /* of all others */
	const char *body;   /* JSON */
	size_t body_len;
	unsigned char etag[16]; /* hash of the body */
	const gen_slot *slot;   /* of what it was read from; of a failure perhaps none */
	size_t slots;
	uint64_t start;      /* generations_now before it was read */
	uint64_t started_ms; /* clock_ms at that moment */
	bool stale;          /* the database is away, and stale_if_error allows it */

	/* live's own. */
	struct live *live;
	struct live_path path; /* references, copied */
	struct waiter waiter;
	struct entry *entry;
};

/* 0; -EAGAIN: too much is waiting already, try again later; -ESHUTDOWN; -ENOMEM. `done` is not
 * called for those. The path is copied. */
int live_read(struct live *l, const struct live_path *p, enum live_urgency urgency,
              struct live_read *r) _must_check_;
/* Gives back what the answer is held by. */
void live_read_done(struct live_read *r);

/* Whether something that an answer was read from has changed since, as far as was told. */
bool live_is_old(const struct live *l, const gen_slot *slot, size_t slots, uint64_t start);
/* Whether it is known that nothing has: what was read may be shown to somebody who comes now. False
 * for everything while changes are not told. */
bool live_is_fresh(const struct live *l, const gen_slot *slot, size_t slots, uint64_t start);
/* Rises with every change of anything. */
uint64_t live_raises(const struct live *l);

#endif
