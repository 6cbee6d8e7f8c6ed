/*
 * What the files of the engine share.
 *
 * engine.c  workers, life, counters
 * lanes.c   the jobs that wait and run, and who waits for them; leaving
 * submit.c  joining a job or beginning one
 * fill.c    one fill: from the cache after all, or run and stored
 * batch.c   several fills in one round trip
 * run.c     one statement, with its tries
 * write.c   one transaction, with its tries, until its changes have been heard of
 * answer.c  from rows to an answer
 * encode.c  one encoding of a body
 * job.c     a job's memory
 */
#ifndef PROVOST_ENGINE_IMPL_H
#define PROVOST_ENGINE_IMPL_H

#include <pthread.h>

#include "provost/engine.h"
#include "provost/generations.h"

enum { FILLS_BUCKETS = 1024 }; /* a power of two */

struct lane {
	struct jobs jobs; /* oldest first */
	unsigned count;   /* of fills, writes, calls, encodings: a batch counts as its members */
};

struct worker {
	struct engine *engine;
	unsigned index;
	pthread_t thread;
	bool started; /* the configuring thread's: to be joined */
	int abandon;  /* eventfd: whoever wanted the running job's answer has left */
	/* Under the engine's lock: */
	bool exited;
	struct job *job; /* that it runs */
	bool abandoned;  /* abandon is readable */
};

struct engine {
	struct pool *pool;
	struct cache *cache;
	struct generations *generations;
	struct listener *listener; /* or NULL */

	pthread_mutex_t lock; /* guards everything below but what worker[] says is another's */
	pthread_cond_t work;
	pthread_cond_t idle; /* stopping, and nothing runs any more */
	struct engine_options options;
	struct lane lane[LANE_COUNT];
	LIST_HEAD(, job) fills[FILLS_BUCKETS]; /* that can be found by their key */
	unsigned busy, background_busy;
	atomic_bool background_full; /* written under the lock, looked at without it */
	bool stopping;
	uint64_t jobs, writes, collapsed, statements, retries, refreshes, encodings;
	uint64_t
	    outcomes[OUTCOME_COUNT]; /* of requests that waited for a job, or were refused one */
	uint64_t reported[OUTCOME_COUNT]; /* of them, at the last report */
	uint64_t report_us;

	struct worker worker[ENGINE_THREADS_MAX];
};

/* ---- job.c --------------------------------------------------------------------------- */

/* One reference, the caller's. NULL when out of memory. */
struct job *job_new_fill(const struct ask *a);
struct job *job_new_write(const struct ask *a);
struct job *job_new_batch(void);
/* References the entry. */
struct job *job_new_call(struct call *c);
struct job *job_new_encode(struct entry *entry, enum entry_coding coding);
/* Its endpoint's timeout, or the one that is given. */
uint64_t job_timeout_us(const struct job *j, uint64_t otherwise_us);
/* Notes generation and time: what the job reads from now on is as of then. Its slots are set. */
void job_note_start(struct engine *e, struct job *j);

/* ---- lanes.c ------------------------------------------------------------------------- */

void lanes_init(struct engine *e);
/* The next job for a worker, by age, within the background's quota; NULL: none. The reference is
 * the worker's now. */
struct job *lanes_take_locked(struct engine *e);
/* A job that ran, or a member of a batch that runs, has ended: what is parked behind it may run,
 * and its outcome is counted; those who wait are the caller's to answer. True: a worker is to be
 * woken for what waits in the lanes. */
bool lanes_end_locked(struct engine *e, struct job *j, struct waiters *ret) _must_check_;
/* The same with the lock and the answering. The reference is given back. */
void lanes_end(struct engine *e, struct job **j);
/* Whether anybody waits for a member of a batch; if not, nobody will. */
bool lanes_is_wanted(struct engine *e, struct job *j);
/* Takes the oldest job of a lane that may never run, with those who wait for it. */
struct job *lanes_drop_locked(struct engine *e, enum job_lane lane, struct waiters *ret);
unsigned lanes_count(const struct waiters *w);
/* Answers those who waited, and gives the caller's reference back. No lock is held. */
void lanes_answer(struct job **j, struct waiters *w);

/* For submit.c: */
struct job *lanes_find_locked(struct engine *e, const struct cache_key *key);
/* From now on it is found by its key. */
void lanes_list_locked(struct engine *e, struct job *j);
/* The lane takes the reference. */
void lanes_enter_locked(struct engine *e, struct job *j, enum job_lane lane);
void lanes_leave_locked(struct engine *e, struct job *j);
void lanes_add_member_locked(struct job *batch, struct job *j);
struct job *lanes_take_member_locked(struct job *batch);
/* Whether the queue has no room for one job more beside `others`. */
bool lanes_is_full_locked(const struct engine *e, unsigned others);
bool lanes_background_is_full_locked(const struct engine *e);

/* What one job cost. */
struct run_counts {
	unsigned statements, retries;
};

/* ---- write.c ------------------------------------------------------------------------- */

/* Runs the job's statement in a transaction, has its changes heard of, and makes its answer; logs
 * what failed. All tries together take at most `timeout_us`, waiting for connections aside; then,
 * or when the pool is interrupted, the transaction is cancelled, and for a second more waited for
 * to say how it ended. Blocks: workers only. */
void write_run(struct engine *e, struct job *j, uint64_t timeout_us, struct run_counts *ret);

/* ---- fill.c -------------------------------------------------------------------------- */

/* Makes the job's answer: out of the cache if it has got there meanwhile, else by its statement,
 * and then stored. All tries together take at most `timeout_us`, waiting for connections aside.
 * Once the descriptor `abandon` is readable the statement is cancelled. Blocks: workers only. */
void fill_run(struct engine *e, struct job *j, uint64_t timeout_us, int abandon,
              struct run_counts *ret);
/* Its two ends: true, the answer was in the cache; and when there is one, it is stored. */
bool fill_begin(struct engine *e, struct job *j) _must_check_;
void fill_end(struct engine *e, struct job *j);

/* ---- batch.c ------------------------------------------------------------------------- */

/* Runs the fills of a batch and ends each. As fill_run; `timeout_us` is for those without a timeout
 * of their own. */
void batch_run(struct engine *e, struct job *b, uint64_t timeout_us, int abandon,
               struct run_counts *ret);

#endif
