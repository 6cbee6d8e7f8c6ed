#include <string.h>

#include "engine_impl.h"

/* ---- the fills that can be found ----------------------------------------------------- */

static unsigned bucket_of(uint64_t hash)
{
	return (unsigned)(hash % FILLS_BUCKETS);
}

struct job *lanes_find_locked(struct engine *e, const struct cache_key *key)
{
	struct job *j;
	LIST_FOREACH (j, &e->fills[bucket_of(key->hash)], same_hash)
		if (j->key.hash == key->hash && j->key.len == key->len &&
		    !memcmp(j->key.bytes, key->bytes, key->len))
			return j;
	return NULL;
}

void lanes_list_locked(struct engine *e, struct job *j)
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

bool lanes_background_is_full_locked(const struct engine *e)
{
	return e->lane[LANE_BACKGROUND].count + e->lane[LANE_PARKED_BACKGROUND].count >=
	       ENGINE_BACKGROUND_MAX;
}

static void note_background_locked(struct engine *e)
{
	atomic_store_explicit(&e->background_full, lanes_background_is_full_locked(e),
	                      memory_order_relaxed);
}

static unsigned weight(const struct job *j)
{
	return j->kind == JOB_BATCH ? j->size : 1;
}

/* Stamped under the lock, so that lanes are in the order of their stamps. */
void lanes_enter_locked(struct engine *e, struct job *j, enum job_lane lane)
{
	struct job *m;
	j->submitted_us = clock_us();
	j->state = JOB_WAITING;
	j->lane = lane;
	TAILQ_FOREACH (m, &j->members, link)
		m->submitted_us = j->submitted_us;
	TAILQ_INSERT_TAIL(&e->lane[lane].jobs, j, link);
	e->lane[lane].count += weight(j);
	note_background_locked(e);
}

void lanes_leave_locked(struct engine *e, struct job *j)
{
	ALWAYS(j->state == JOB_WAITING && e->lane[j->lane].count >= weight(j));
	TAILQ_REMOVE(&e->lane[j->lane].jobs, j, link);
	e->lane[j->lane].count -= weight(j);
	note_background_locked(e);
}

/* ---- batches ------------------------------------------------------------------------- */

void lanes_add_member_locked(struct job *batch, struct job *j)
{
	j->batch = batch;
	TAILQ_INSERT_TAIL(&batch->members, j, link);
	batch->size++;
}

static void remove_member(struct job *j)
{
	TAILQ_REMOVE(&j->batch->members, j, link);
	j->batch->size--;
	j->batch = NULL;
}

struct job *lanes_take_member_locked(struct job *batch)
{
	struct job *j = TAILQ_FIRST(&batch->members);
	remove_member(j);
	return j;
}

/* Of a batch that waits; its last member takes it along. */
static void leave_batch_locked(struct engine *e, struct job *j)
{
	struct job *b = j->batch;
	ALWAYS(b->state == JOB_WAITING);
	remove_member(j);
	e->lane[b->lane].count--;
	if (b->size > 0)
		return;
	lanes_leave_locked(e, b);
	b->state = JOB_ENDED;
	job_unref(&b);
}

/* ---- from lane to worker ------------------------------------------------------------- */

/* Takes its turn by when it came: in front of all others it would let a key that is changed and
 * asked for all the time starve them, and the lane's first would not be the next to be overdue. */
static void unpark_locked(struct engine *e, struct job *j)
{
	enum job_lane lane = j->lane == LANE_PARKED ? LANE_REQUESTS : LANE_BACKGROUND;
	struct jobs *jobs = &e->lane[lane].jobs;
	struct job *before = TAILQ_LAST(jobs, jobs);
	lanes_leave_locked(e, j);
	j->before->next = NULL;
	j->before = NULL;
	j->lane = lane;
	while (before && before->submitted_us > j->submitted_us)
		before = TAILQ_PREV(before, jobs, link);
	if (before)
		TAILQ_INSERT_AFTER(jobs, before, j, link);
	else
		TAILQ_INSERT_HEAD(jobs, j, link);
	e->lane[lane].count++;
	note_background_locked(e);
	lanes_list_locked(e, j);
}

bool lanes_is_full_locked(const struct engine *e, unsigned others)
{
	return e->lane[LANE_REQUESTS].count + e->lane[LANE_PARKED].count + others >=
	       e->options.queue;
}

/* A waiting job that is not to run: out of every list. The reference is the caller's. */
static void drop_locked(struct engine *e, struct job *j, struct waiters *ret)
{
	if (j->batch)
		leave_batch_locked(e, j);
	else
		lanes_leave_locked(e, j);
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
	if (j && j->kind == JOB_BATCH)
		j = TAILQ_FIRST(&j->members);
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
	struct job *b = TAILQ_FIRST(&e->lane[LANE_BACKGROUND].jobs), *m;
	if (b && background_may_run(e) && (!j || b->submitted_us < j->submitted_us))
		j = b;
	if (!j)
		return NULL;
	lanes_leave_locked(e, j);
	j->state = JOB_RUNNING;
	TAILQ_FOREACH (m, &j->members, link)
		m->state = JOB_RUNNING;
	e->busy++;
	e->background_busy += j->lane == LANE_BACKGROUND;
	return j;
}

unsigned lanes_count(const struct waiters *waiters)
{
	unsigned n = 0;
	const struct waiter *w;
	TAILQ_FOREACH (w, waiters, link)
		n++;
	return n;
}

bool lanes_end_locked(struct engine *e, struct job *j, struct waiters *ret)
{
	ALWAYS(j->state == JOB_RUNNING && e->busy > 0);
	j->state = JOB_ENDED;
	if (j->batch) {
		remove_member(j); /* which goes on */
	} else {
		e->busy--;
		e->background_busy -= j->lane == LANE_BACKGROUND;
	}
	unlist_locked(j);
	if (j->next)
		unpark_locked(e, j->next);
	TAILQ_INIT(ret);
	TAILQ_CONCAT(ret, &j->waiters, link);
	e->outcomes[j->answer.outcome] += lanes_count(ret);
	return !TAILQ_EMPTY(&e->lane[LANE_REQUESTS].jobs) ||
	       !TAILQ_EMPTY(&e->lane[LANE_BACKGROUND].jobs);
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

void lanes_end(struct engine *e, struct job **j)
{
	struct waiters w;
	pthread_mutex_lock(&e->lock);
	bool more = lanes_end_locked(e, *j, &w);
	pthread_mutex_unlock(&e->lock);
	if (more)
		pthread_cond_signal(&e->work);
	lanes_answer(j, &w);
}

bool lanes_is_wanted(struct engine *e, struct job *j)
{
	pthread_mutex_lock(&e->lock);
	bool wanted = !TAILQ_EMPTY(&j->waiters);
	j->cancelled |= !wanted;
	pthread_mutex_unlock(&e->lock);
	return wanted;
}

/* ---- leaving ------------------------------------------------------------------------- */

static struct waiter *waiter_of_fill(struct job *j, uint64_t ticket)
{
	struct waiter *w;
	if (j->kind != JOB_FILL)
		return NULL; /* whoever waits for it stays */
	TAILQ_FOREACH (w, &j->waiters, link)
		if (w->ticket == ticket)
			return w;
	return NULL;
}

/* `*ret`: the job, or the member of it that is a batch. */
static struct waiter *waiter_of(struct job *j, uint64_t ticket, struct job **ret)
{
	struct waiter *w;
	TAILQ_FOREACH (*ret, &j->members, link)
		if ((w = waiter_of_fill(*ret, ticket)))
			return w;
	*ret = j;
	return waiter_of_fill(j, ticket);
}

static struct waiter *waiter_in_lane(struct lane *lane, uint64_t ticket, struct job **ret)
{
	struct waiter *w;
	struct job *j;
	TAILQ_FOREACH (j, &lane->jobs, link)
		if ((w = waiter_of(j, ticket, ret)))
			return w;
	return NULL;
}

static struct waiter *waiter_of_worker(struct worker *worker, uint64_t ticket, struct job **ret)
{
	return worker->job ? waiter_of(worker->job, ticket, ret) : NULL;
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

/* Whether the others of a batch that runs are wanted: it goes on for any of them. */
static bool batch_is_wanted(const struct job *b)
{
	const struct job *m;
	TAILQ_FOREACH (m, &b->members, link)
		if (!TAILQ_EMPTY(&m->waiters))
			return true;
	return false;
}

/* The same of all of it, which nobody is to join any more. */
static void cancel_batch_locked(struct engine *e, struct job *b)
{
	struct job *m;
	TAILQ_FOREACH (m, &b->members, link)
		m->cancelled = true;
	cancel_locked(e, b);
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
	if (j->state != JOB_RUNNING) {
		drop_locked(e, j, &none);
		*ret_unwanted = j;
	} else if (!j->batch) {
		cancel_locked(e, j);
	} else if (!batch_is_wanted(j->batch)) {
		cancel_batch_locked(e, j->batch);
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
