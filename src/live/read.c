#include <errno.h>
#include <string.h>

#include "live_impl.h"
#include "provost/engine.h"
#include "provost/status.h"

static struct cache_key key_of(const struct live_read *r)
{
	return cache_key(r->live->cache, r->path.key.data, r->path.key.len);
}

/* ---- what came of it ----------------------------------------------------------------- */

static void set_failure(struct live_read *r, const struct answer *a)
{
	r->status = status_of_answer(a, &r->detail);
}

static void set_body(struct live_read *r, const void *body, size_t len, const unsigned char *etag)
{
	if (len > LIVE_BODY_MAX) {
		r->status = 413;
		r->detail = "The answer is too large to be live; read it over HTTP.";
		return;
	}
	r->status = 200;
	r->body = body;
	r->body_len = len;
	memcpy(r->etag, etag, sizeof r->etag);
}

static void set_source(struct live_read *r, const struct entry *e)
{
	r->slot = entry_slots(e, &r->slots);
	r->start = entry_start(e);
	r->started_ms = entry_started_ms(e);
}

/* Takes the reference over. */
static void take_entry(struct live_read *r, struct entry *e)
{
	static const struct answer none = {.outcome = OUTCOME_NO_ROW};
	size_t len;
	const void *body = entry_body(e, &len);
	r->entry = e;
	set_source(r, e);
	if (entry_kind(e) == ENTRY_ABSENCE)
		set_failure(r, &none);
	else
		set_body(r, body, len, entry_etag(e));
}

static bool take_stale(struct live_read *r)
{
	const struct endpoint *e = r->path.endpoint;
	struct cache_found found;
	if (!endpoint_is_cached(e) ||
	    !cache_get_stale(r->live->cache, key_of(r), &e->freshness, clock_ms(), &found))
		return false;
	take_entry(r, found.entry);
	/* Somebody may have had more luck meanwhile. */
	r->stale = found.state != CACHE_FRESH;
	return true;
}

/* ---- the cache ----------------------------------------------------------------------- */

static bool take_fresh(struct live_read *r)
{
	const struct endpoint *e = r->path.endpoint;
	struct entry *entry = NULL;
	/* Not counted: hits and misses are those of requests. */
	if (endpoint_is_cached(e))
		entry = cache_peek(r->live->cache, key_of(r), &e->freshness, clock_ms());
	if (entry)
		take_entry(r, entry);
	return entry != NULL;
}

/* Somebody waits, and the database is known to be away. A refresh asks it all the same: thus it is
 * known when it is back. */
static bool take_instead(struct live_read *r, enum live_urgency urgency)
{
	return urgency == LIVE_FIRST && !engine_database_is_up(r->live->engine) && take_stale(r);
}

/* ---- the engine ---------------------------------------------------------------------- */

static void note_job(struct live_read *r, const struct job *j)
{
	/* Relaxed: the job has ended, which the engine's lock has told. */
	uint64_t start = atomic_load_explicit(&j->start, memory_order_relaxed);
	if (j->entry) {
		set_source(r, j->entry);
	} else if (start != JOB_NOT_SENT) {
		r->slot = j->slot;
		r->slots = j->slots;
		r->start = start;
		r->started_ms = atomic_load_explicit(&j->started_ms, memory_order_relaxed);
	}
}

static void waiter_done(struct waiter *w)
{
	struct live_read *r = (struct live_read *)((char *)w - offsetof(struct live_read, waiter));
	const struct answer *a = &w->job->answer;
	if (engine_database_failed(r->live->engine, a) && take_stale(r)) {
		r->done(r);
		return;
	}
	note_job(r, w->job);
	if (a->outcome == OUTCOME_OK)
		set_body(r, a->body, a->body_len, a->etag);
	else
		set_failure(r, a);
	r->done(r);
}

static int submit(struct live_read *r, enum live_urgency urgency)
{
	const struct ask a = {
	    .catalog = r->path.catalog,
	    .endpoint = r->path.endpoint,
	    .key = key_of(r),
	    .request_id = "live",
	};
	r->waiter = (struct waiter){.done = waiter_done}; /* without a ticket: nobody leaves */
	struct engine *e = r->live->engine;
	return urgency == LIVE_FIRST ? engine_submit(e, &a, &r->waiter)
	                             : engine_submit_background(e, &a, &r->waiter);
}

/* ---- one reading --------------------------------------------------------------------- */

static int copy_path(struct live_read *r, const struct live_path *p)
{
	buf_add(&r->path.key, p->key.data, p->key.len);
	if (r->path.key.failed) {
		buf_done(&r->path.key);
		return -ENOMEM;
	}
	snapshot_ref(&p->catalog->object);
	r->path.catalog = p->catalog;
	r->path.endpoint = p->endpoint;
	return 0;
}

int live_read(struct live *l, const struct live_path *p, enum live_urgency urgency,
              struct live_read *r)
{
	*r = (struct live_read){.done = r->done, .live = l};
	int err = copy_path(r, p);
	if (err < 0)
		return err;
	/* Of what says nothing of its own: a failure before anything was sent. */
	r->start = generations_now(l->generations);
	r->started_ms = clock_ms();
	if (take_fresh(r) || take_instead(r, urgency)) {
		r->done(r);
		return 0;
	}
	err = submit(r, urgency);
	if (err < 0)
		live_read_done(r);
	return err;
}

void live_read_done(struct live_read *r)
{
	job_unref(&r->waiter.job);
	entry_unref(&r->entry);
	live_path_done(&r->path);
	r->body = r->detail = NULL;
	r->slot = NULL;
	r->slots = 0;
}
