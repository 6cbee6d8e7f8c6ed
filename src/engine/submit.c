#include <errno.h>
#include <string.h>

#include "encode.h"
#include "engine_impl.h"
#include "provost/delay.h"

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
	if (start == JOB_NOT_SENT || BROKEN(RULE_JOIN) ||
	    generations_fresh(e->generations, j->slot, j->slots, start, clock_ms()))
		return JOINABLE;
	uint64_t started_ms = atomic_load_explicit(&j->started_ms, memory_order_relaxed);
	int64_t max_stale_ms = j->endpoint->freshness.max_stale_ms;
	bool stale = max_stale_ms > 0 && clock_ms() < started_ms + (uint64_t)max_stale_ms;
	return stale ? JOINABLE_STALE : NOT_JOINABLE;
}

/* A request waits for it now: it need no longer wait for the background's quota. */
static void promote_locked(struct engine *e, struct job *j)
{
	bool parked = j->lane == LANE_PARKED_BACKGROUND;
	if (j->state != JOB_WAITING || (j->lane != LANE_BACKGROUND && !parked) ||
	    lanes_is_full_locked(e, 0))
		return;
	lanes_leave_locked(e, j);
	lanes_enter_locked(e, j, parked ? LANE_PARKED : LANE_REQUESTS);
	pthread_cond_signal(&e->work); /* a worker that had nothing to do for the quota's sake */
}

/* The fill that whoever asks may share. `*ret_running`: one that it must wait behind instead. */
static struct job *shared_locked(struct engine *e, const struct ask *a, enum job_lane lane,
                                 struct job **ret_running, bool *ret_stale)
{
	struct job *j = endpoint_is_collapsed(a->endpoint) ? lanes_find_locked(e, &a->key) : NULL;
	enum joinable how = j ? is_joinable(e, j) : NOT_JOINABLE;
	/* A refresh is there to show the change. */
	if (how == JOINABLE_STALE && lane == LANE_BACKGROUND)
		how = NOT_JOINABLE;
	*ret_running = NULL;
	*ret_stale = how == JOINABLE_STALE;
	if (!j || how != NOT_JOINABLE)
		return j;
	*ret_running = j;
	return j->next;
}

static bool join_locked(struct engine *e, const struct ask *a, enum job_lane lane, struct waiter *w,
                        struct job **ret_running)
{
	struct job *j = shared_locked(e, a, lane, ret_running, &w->stale);
	if (!j)
		return false;
	DELAY(DELAY_JOINED);
	if (lane == LANE_REQUESTS)
		promote_locked(e, j);
	w->collapsed = true;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	e->collapsed += lane == LANE_REQUESTS;
	return true;
}

/* Takes the reference when it returns 1; 0: joined another. Into the batch, if there is one and it
 * need not wait for another fill. */
static int admit_locked(struct engine *e, const struct ask *a, struct job *j, struct waiter *w,
                        struct job *batch)
{
	struct job *running;
	if (e->stopping)
		return -ESHUTDOWN;
	if (join_locked(e, a, LANE_REQUESTS, w, &running))
		return 0;
	if (lanes_is_full_locked(e, batch ? batch->size : 0)) {
		e->outcomes[OUTCOME_QUEUE_FULL]++;
		return -EAGAIN;
	}
	e->jobs++;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	if (running) {
		lanes_enter_locked(e, j, LANE_PARKED);
		running->next = j;
		j->before = running;
		return 1;
	}
	if (batch)
		lanes_add_member_locked(batch, j);
	else
		lanes_enter_locked(e, j, LANE_REQUESTS);
	if (endpoint_is_collapsed(a->endpoint))
		lanes_list_locked(e, j);
	return 1;
}

static bool join(struct engine *e, const struct ask *a, enum job_lane lane, struct waiter *w)
{
	struct job *running;
	DELAY(DELAY_JOIN);
	pthread_mutex_lock(&e->lock);
	bool joined = !e->stopping && join_locked(e, a, lane, w, &running);
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
	if (join(e, a, LANE_REQUESTS, w))
		return 0;
	struct job *j = job_new_fill(a);
	if (!j)
		return -ENOMEM;
	pthread_mutex_lock(&e->lock);
	int r = admit_locked(e, a, j, w, NULL);
	pthread_mutex_unlock(&e->lock);
	if (r <= 0) {
		job_unref(&j);
		return r;
	}
	/* Behind the unlock, so that the worker does not wake only to wait for the lock. */
	pthread_cond_signal(&e->work);
	return 0;
}

/* ---- batches ------------------------------------------------------------------------- */

/* Which of them join what is there; the others' `ret` is 1. */
static void join_some(struct engine *e, const struct ask *a, struct waiter *const *w, int *ret,
                      size_t n)
{
	struct job *running;
	DELAY(DELAY_JOIN);
	pthread_mutex_lock(&e->lock);
	for (size_t i = 0; i < n; i++) {
		reset_waiter(w[i]);
		ret[i] = e->stopping || !join_locked(e, &a[i], LANE_REQUESTS, w[i], &running);
	}
	pthread_mutex_unlock(&e->lock);
}

/* One member is no batch. Takes the references. */
static void enter_batch_locked(struct engine *e, struct job **b)
{
	if ((*b)->size > 1)
		lanes_enter_locked(e, *b, LANE_REQUESTS);
	else if ((*b)->size == 1)
		lanes_enter_locked(e, lanes_take_member_locked(*b), LANE_REQUESTS);
	if ((*b)->size == 0)
		job_unref(b);
	*b = NULL;
}

void engine_submit_batch(struct engine *e, const struct ask *a, struct waiter *const *w, int *ret,
                         size_t n)
{
	struct job *j[BATCH_MAX] = {0};
	ALWAYS(n <= BATCH_MAX);
	join_some(e, a, w, ret, n);
	struct job *b = job_new_batch();
	for (size_t i = 0; i < n; i++)
		if (ret[i] == 1 && (!b || !(j[i] = job_new_fill(&a[i]))))
			ret[i] = -ENOMEM;
	if (!b)
		return;
	pthread_mutex_lock(&e->lock);
	for (size_t i = 0; i < n; i++)
		if (ret[i] == 1)
			ret[i] = admit_locked(e, &a[i], j[i], w[i], b);
	enter_batch_locked(e, &b);
	pthread_mutex_unlock(&e->lock);
	pthread_cond_signal(&e->work);
	for (size_t i = 0; i < n; i++) {
		if (ret[i] == 1)
			ret[i] = 0;
		else
			job_unref(&j[i]);
	}
}

/* ---- jobs that nobody can join ------------------------------------------------------- */

static int admit_alone_locked(struct engine *e, struct job *j, struct waiter *w)
{
	if (e->stopping)
		return -ESHUTDOWN;
	if (lanes_is_full_locked(e, 0)) {
		e->outcomes[OUTCOME_QUEUE_FULL]++;
		return -EAGAIN;
	}
	e->writes += j->kind == JOB_WRITE;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	lanes_enter_locked(e, j, LANE_REQUESTS);
	return 0;
}

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
	bool ok = !e->stopping && !lanes_background_is_full_locked(e) &&
	          (j->kind != JOB_FILL || !lanes_find_locked(e, &j->key));
	if (ok) {
		lanes_enter_locked(e, j, LANE_BACKGROUND);
		if (j->kind == JOB_FILL) {
			lanes_list_locked(e, j);
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

/* As admit_locked. */
static int admit_refresh_locked(struct engine *e, const struct ask *a, struct job *j,
                                struct waiter *w)
{
	struct job *running;
	if (e->stopping)
		return -ESHUTDOWN;
	if (join_locked(e, a, LANE_BACKGROUND, w, &running))
		return 0;
	if (lanes_background_is_full_locked(e))
		return -EAGAIN;
	e->refreshes++;
	j->background = true;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	lanes_enter_locked(e, j, running ? LANE_PARKED_BACKGROUND : LANE_BACKGROUND);
	if (running) {
		running->next = j;
		j->before = running;
	} else if (endpoint_is_collapsed(a->endpoint)) {
		lanes_list_locked(e, j);
	}
	return 1;
}

int engine_submit_background(struct engine *e, const struct ask *a, struct waiter *w)
{
	reset_waiter(w);
	if (join(e, a, LANE_BACKGROUND, w))
		return 0;
	struct job *j = job_new_fill(a);
	if (!j)
		return -ENOMEM;
	pthread_mutex_lock(&e->lock);
	int r = admit_refresh_locked(e, a, j, w);
	pthread_mutex_unlock(&e->lock);
	if (r <= 0) {
		job_unref(&j);
		return r;
	}
	pthread_cond_signal(&e->work);
	return 0;
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
