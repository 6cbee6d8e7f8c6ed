/*
 * What the files of the engine share.
 *
 * engine.c  workers, life, counters
 * lanes.c   the jobs that wait and those who wait for them: joining, leaving, expiring
 * fill.c    one fill: from the cache after all, or run and stored
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

TAILQ_HEAD(jobs, job);

struct lane {
	struct jobs jobs; /* oldest first */
	unsigned count;
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
/* References the entry. */
struct job *job_new_call(struct call *c);
struct job *job_new_encode(struct entry *entry, enum entry_coding coding);
/* Notes generation and time: what the job reads from now on is as of then. Its slots are set. */
void job_note_start(struct engine *e, struct job *j);

/* ---- lanes.c ------------------------------------------------------------------------- */

void lanes_init(struct engine *e);
/* The next job for a worker, by age, within the background's quota; NULL: none. The reference is
 * the worker's now. */
struct job *lanes_take_locked(struct engine *e);
/* A job that ran has ended: what is parked behind it may run; those who wait are the caller's to
 * answer. */
void lanes_end_locked(struct engine *e, struct job *j, struct waiters *ret);
/* Takes the oldest job of a lane that may never run, with those who wait for it. */
struct job *lanes_drop_locked(struct engine *e, enum job_lane lane, struct waiters *ret);
unsigned lanes_count(const struct waiters *w);
/* Answers those who waited, and gives the caller's reference back. No lock is held. */
void lanes_answer(struct job **j, struct waiters *w);

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

#endif
