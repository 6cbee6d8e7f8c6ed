#include <errno.h>
#include <string.h>

#include "encode.h"
#include "engine_impl.h"

/* ---- the fills that can be found ----------------------------------------------------- */

static unsigned bucket_of(uint64_t hash)
{
	return (unsigned)(hash % FILLS_BUCKETS);
}

static struct job *find_locked(struct engine *e, const struct cache_key *key)
{
	struct job *j;
	LIST_FOREACH (j, &e->fills[bucket_of(key->hash)], same_hash)
		if (j->key.hash == key->hash && j->key.len == key->len &&
		    !memcmp(j->key.bytes, key->bytes, key->len))
			return j;
	return NULL;
}

static void list_locked(struct engine *e, struct job *j)
{
	LIST_INSERT_HEAD(&e->fills[bucket_of(j->key.hash)], j, same_hash);
	j->listed = true;
}

static void unlist_locked(struct job *j)
{
	if (j->listed)
		LIST_REMOVE(j, same_hash);
	j->listed = false;
}

/* ---- lanes --------------------------------------------------------------------------- */

void lanes_init(struct engine *e)
{
	for (unsigned i = 0; i < LANE_COUNT; i++)
		TAILQ_INIT(&e->lane[i].jobs);
	for (unsigned i = 0; i < FILLS_BUCKETS; i++)
		LIST_INIT(&e->fills[i]);
}

static bool background_is_full_locked(const struct engine *e)
{
	return e->lane[LANE_BACKGROUND].count >= ENGINE_BACKGROUND_MAX;
}

static void note_background_locked(struct engine *e)
{
	atomic_store_explicit(&e->background_full, background_is_full_locked(e),
	                      memory_order_relaxed);
}

/* Stamped under the lock, so that lanes are in the order of their stamps. */
static void enter_locked(struct engine *e, struct job *j, enum job_lane lane)
{
	j->submitted_us = clock_us();
	j->state = JOB_WAITING;
	j->lane = lane;
	TAILQ_INSERT_TAIL(&e->lane[lane].jobs, j, link);
	e->lane[lane].count++;
	note_background_locked(e);
}

static void leave_locked(struct engine *e, struct job *j)
{
	ALWAYS(j->state == JOB_WAITING && e->lane[j->lane].count > 0);
	TAILQ_REMOVE(&e->lane[j->lane].jobs, j, link);
	e->lane[j->lane].count--;
	note_background_locked(e);
}

/* Takes its turn by when it came: in front of all others it would let a key that is changed and
 * asked for all the time starve them, and the lane's first would not be the next to be overdue. */
static void unpark_locked(struct engine *e, struct job *j)
{
	struct jobs *jobs = &e->lane[LANE_REQUESTS].jobs;
	struct job *before = TAILQ_LAST(jobs, jobs);
	leave_locked(e, j);
	j->before->next = NULL;
	j->before = NULL;
	j->lane = LANE_REQUESTS;
	while (before && before->submitted_us > j->submitted_us)
		before = TAILQ_PREV(before, jobs, link);
	if (before)
		TAILQ_INSERT_AFTER(jobs, before, j, link);
	else
		TAILQ_INSERT_HEAD(jobs, j, link);
	e->lane[LANE_REQUESTS].count++;
	list_locked(e, j);
}

static bool is_full_locked(const struct engine *e)
{
	return e->lane[LANE_REQUESTS].count + e->lane[LANE_PARKED].count >= e->options.queue;
}

/* A waiting job that is not to run: out of every list. The reference is the caller's. */
static void drop_locked(struct engine *e, struct job *j, struct waiters *ret)
{
	leave_locked(e, j);
	if (j->before)
		j->before->next = NULL;
	j->before = NULL;
	unlist_locked(j);
	j->state = JOB_ENDED;
	TAILQ_INIT(ret);
	TAILQ_CONCAT(ret, &j->waiters, link);
}

struct job *lanes_drop_locked(struct engine *e, enum job_lane lane, struct waiters *ret)
{
	struct job *j = TAILQ_FIRST(&e->lane[lane].jobs);
	if (j)
		drop_locked(e, j, ret);
	return j;
}

static bool background_may_run(const struct engine *e)
{
	return e->background_busy < MAX(e->options.threads / 4, 1u);
}

/* By age, so that neither requests nor, within its quota, the background ever starves. */
struct job *lanes_take_locked(struct engine *e)
{
	struct job *j = TAILQ_FIRST(&e->lane[LANE_REQUESTS].jobs);
	struct job *b = TAILQ_FIRST(&e->lane[LANE_BACKGROUND].jobs);
	if (b && background_may_run(e) && (!j || b->submitted_us < j->submitted_us))
		j = b;
	if (!j)
		return NULL;
	leave_locked(e, j);
	j->state = JOB_RUNNING;
	e->busy++;
	e->background_busy += j->lane == LANE_BACKGROUND;
	return j;
}

void lanes_end_locked(struct engine *e, struct job *j, struct waiters *ret)
{
	ALWAYS(j->state == JOB_RUNNING && e->busy > 0);
	j->state = JOB_ENDED;
	e->busy--;
	e->background_busy -= j->lane == LANE_BACKGROUND;
	unlist_locked(j);
	if (j->next)
		unpark_locked(e, j->next);
	TAILQ_INIT(ret);
	TAILQ_CONCAT(ret, &j->waiters, link);
}

unsigned lanes_count(const struct waiters *waiters)
{
	unsigned n = 0;
	const struct waiter *w;
	TAILQ_FOREACH (w, waiters, link)
		n++;
	return n;
}

void lanes_answer(struct job **j, struct waiters *waiters)
{
	struct waiter *w;
	while ((w = TAILQ_FIRST(waiters))) {
		TAILQ_REMOVE(waiters, w, link);
		job_ref(*j);
		w->job = *j;
		w->done(w); /* which may free it */
	}
	job_unref(j);
}

/* ---- joining ------------------------------------------------------------------------- */

enum joinable {
	NOT_JOINABLE,
	JOINABLE,
	JOINABLE_STALE, /* only because the endpoint puts up with answers of that age */
};

/* Whether a request that comes now may be given what the job reads: when its statement is yet to be
 * sent, or nothing that it reads was changed since. */
static enum joinable is_joinable(const struct engine *e, const struct job *j)
{
	if (j->cancelled)
		return NOT_JOINABLE;
	/* Acquire: the slots are there once it is not JOB_NOT_SENT. */
	uint64_t start = atomic_load_explicit(&j->start, memory_order_acquire);
	if (start == JOB_NOT_SENT ||
	    generations_fresh(e->generations, j->slot, j->slots, start, clock_ms()))
		return JOINABLE;
	uint64_t started_ms = atomic_load_explicit(&j->started_ms, memory_order_relaxed);
	int64_t max_stale_ms = j->endpoint->freshness.max_stale_ms;
	bool stale = max_stale_ms > 0 && clock_ms() < started_ms + (uint64_t)max_stale_ms;
	return stale ? JOINABLE_STALE : NOT_JOINABLE;
}

/* Somebody waits for it now: it need no longer wait for the background's quota. */
static void promote_locked(struct engine *e, struct job *j)
{
	if (j->state != JOB_WAITING || j->lane != LANE_BACKGROUND || is_full_locked(e))
		return;
	leave_locked(e, j);
	enter_locked(e, j, LANE_REQUESTS);
	pthread_cond_signal(&e->work); /* a worker that had nothing to do for the quota's sake */
}

/* The fill that a request may share. `*ret_running`: one that it must wait behind instead. */
static struct job *shared_locked(struct engine *e, const struct ask *a, struct job **ret_running,
                                 bool *ret_stale)
{
	struct job *j = endpoint_is_collapsed(a->endpoint) ? find_locked(e, &a->key) : NULL;
	enum joinable how = j ? is_joinable(e, j) : NOT_JOINABLE;
	*ret_running = NULL;
	*ret_stale = how == JOINABLE_STALE;
	if (!j || how != NOT_JOINABLE)
		return j;
	*ret_running = j;
	return j->next;
}

static bool join_locked(struct engine *e, const struct ask *a, struct waiter *w,
                        struct job **ret_running)
{
	struct job *j = shared_locked(e, a, ret_running, &w->stale);
	if (!j)
		return false;
	promote_locked(e, j);
	w->collapsed = true;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	e->collapsed++;
	return true;
}

/* Takes the reference when it returns 1; 0: joined another. */
static int admit_locked(struct engine *e, const struct ask *a, struct job *j, struct waiter *w)
{
	struct job *running;
	if (e->stopping)
		return -ESHUTDOWN;
	if (join_locked(e, a, w, &running))
		return 0;
	if (is_full_locked(e)) {
		e->outcomes[OUTCOME_QUEUE_FULL]++;
		return -EAGAIN;
	}
	e->jobs++;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	enter_locked(e, j, running ? LANE_PARKED : LANE_REQUESTS);
	if (running) {
		running->next = j;
		j->before = running;
	} else if (endpoint_is_collapsed(a->endpoint)) {
		list_locked(e, j);
	}
	return 1;
}

static bool join(struct engine *e, const struct ask *a, struct waiter *w)
{
	struct job *running;
	pthread_mutex_lock(&e->lock);
	bool joined = !e->stopping && join_locked(e, a, w, &running);
	pthread_mutex_unlock(&e->lock);
	return joined;
}

static void reset_waiter(struct waiter *w)
{
	w->job = NULL;
	w->left = w->collapsed = w->stale = false;
}

int engine_submit(struct engine *e, const struct ask *a, struct waiter *w)
{
	reset_waiter(w);
	if (join(e, a, w))
		return 0;
	struct job *j = job_new_fill(a);
	if (!j)
		return -ENOMEM;
	pthread_mutex_lock(&e->lock);
	int r = admit_locked(e, a, j, w);
	pthread_mutex_unlock(&e->lock);
	if (r <= 0) {
		job_unref(&j);
		return r;
	}
	/* Behind the unlock, so that the worker does not wake only to wait for the lock. */
	pthread_cond_signal(&e->work);
	return 0;
}

static int admit_alone_locked(struct engine *e, struct job *j, struct waiter *w)
{
	if (e->stopping)
		return -ESHUTDOWN;
	if (is_full_locked(e)) {
		e->outcomes[OUTCOME_QUEUE_FULL]++;
		return -EAGAIN;
	}
	e->writes += j->kind == JOB_WRITE;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	enter_locked(e, j, LANE_REQUESTS);
	return 0;
}

/* A job that nobody can join. */
static int submit_alone(struct engine *e, struct job *j, struct waiter *w)
{
	reset_waiter(w);
	if (!j)
		return -ENOMEM;
	pthread_mutex_lock(&e->lock);
	int r = admit_alone_locked(e, j, w);
	pthread_mutex_unlock(&e->lock);
	if (r < 0)
		job_unref(&j);
	else
		pthread_cond_signal(&e->work);
	return r;
}

int engine_call(struct engine *e, struct call *c, struct waiter *w)
{
	return submit_alone(e, job_new_call(c), w);
}

int engine_write(struct engine *e, const struct ask *a, struct waiter *w)
{
	return submit_alone(e, job_new_write(a), w);
}

/* ---- the background ------------------------------------------------------------------ */

/* Takes the reference when it returns true. */
static bool admit_background(struct engine *e, struct job *j)
{
	j->background = true;
	pthread_mutex_lock(&e->lock);
	bool ok = !e->stopping && !background_is_full_locked(e) &&
	          (j->kind != JOB_FILL || !find_locked(e, &j->key));
	if (ok) {
		enter_locked(e, j, LANE_BACKGROUND);
		if (j->kind == JOB_FILL) {
			list_locked(e, j);
			e->refreshes++;
		} else {
			e->encodings++;
		}
	}
	pthread_mutex_unlock(&e->lock);
	if (ok)
		pthread_cond_signal(&e->work);
	return ok;
}

void engine_refresh(struct engine *e, const struct ask *a)
{
	struct job *j = job_new_fill(a);
	if (j && !admit_background(e, j))
		job_unref(&j);
}

void engine_encode(struct engine *e, struct entry *entry, enum entry_coding coding)
{
	size_t len;
	(void)entry_body(entry, &len);
	/* Relaxed: a look that spares the work when the lane is full. */
	bool full = atomic_load_explicit(&e->background_full, memory_order_relaxed);
	if (len < ENCODE_MIN || full || !cache_claim_variant(e->cache, entry, coding))
		return;
	struct job *j = job_new_encode(entry, coding);
	if (j && admit_background(e, j))
		return;
	job_unref(&j);
	cache_unclaim_variant(e->cache, entry, coding);
}

/* ---- leaving ------------------------------------------------------------------------- */

static struct waiter *waiter_of(struct job *j, uint64_t ticket)
{
	struct waiter *w;
	if (j->kind != JOB_FILL)
		return NULL; /* whoever waits for it stays */
	TAILQ_FOREACH (w, &j->waiters, link)
		if (w->ticket == ticket)
			return w;
	return NULL;
}

static struct waiter *waiter_in_lane(struct lane *lane, uint64_t ticket, struct job **ret)
{
	struct waiter *w;
	TAILQ_FOREACH (*ret, &lane->jobs, link)
		if ((w = waiter_of(*ret, ticket)))
			return w;
	return NULL;
}

static struct waiter *waiter_of_worker(struct worker *worker, uint64_t ticket, struct job **ret)
{
	*ret = worker->job;
	return *ret ? waiter_of(*ret, ticket) : NULL;
}

/* Tells the worker that runs the job to give it up. */
static void cancel_locked(struct engine *e, struct job *j)
{
	uint64_t one = 1;
	j->cancelled = true;
	for (unsigned i = 0; i < ENGINE_THREADS_MAX; i++) {
		struct worker *w = &e->worker[i];
		if (w->job == j && !w->abandoned)
			w->abandoned = write(w->abandon, &one, sizeof one) == sizeof one;
	}
}

static struct waiter *find_waiter_locked(struct engine *e, uint64_t ticket, struct job **ret)
{
	struct waiter *w = NULL;
	for (unsigned i = 0; i < LANE_COUNT && !w; i++)
		w = waiter_in_lane(&e->lane[i], ticket, ret);
	for (unsigned i = 0; i < ENGINE_THREADS_MAX && !w; i++)
		w = waiter_of_worker(&e->worker[i], ticket, ret);
	return w;
}

/* Unlinks the waiter; `*ret_unwanted` is its job if that is not to run for anybody else. */
static struct waiter *abandon_locked(struct engine *e, uint64_t ticket, struct job **ret_unwanted)
{
	struct job *j;
	struct waiters none;
	struct waiter *w = find_waiter_locked(e, ticket, &j);
	*ret_unwanted = NULL;
	if (!w)
		return NULL;
	TAILQ_REMOVE(&j->waiters, w, link);
	w->left = true;
	e->outcomes[OUTCOME_ABANDONED]++;
	if (!TAILQ_EMPTY(&j->waiters) || j->background)
		return w;
	if (j->state == JOB_RUNNING) {
		cancel_locked(e, j);
	} else {
		drop_locked(e, j, &none);
		*ret_unwanted = j;
	}
	return w;
}

void engine_abandon(struct engine *e, uint64_t ticket)
{
	struct job *unwanted;
	pthread_mutex_lock(&e->lock);
	struct waiter *w = abandon_locked(e, ticket, &unwanted);
	pthread_mutex_unlock(&e->lock);
	if (unwanted)
		job_unref(&unwanted);
	if (w)
		w->done(w);
}
