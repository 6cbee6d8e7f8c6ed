/*
 * run: one statement from a connection to its answer, with the tries that a read may have; and what
 * it has in common with a write.
 */
#ifndef PROVOST_ENGINE_RUN_H
#define PROVOST_ENGINE_RUN_H

#include "engine_impl.h"

struct pg_result;

enum { RUN_CONFLICTS_MAX = 3 }; /* retries of 40001 and 40P01 */

/* Runs the job's call. Blocks: workers only. */
void run_call(struct engine *e, struct job *j, uint64_t timeout_us);

/* Runs the job's statement and makes its answer; logs what failed. Notes the generation and the
 * time just before each try is sent. Adds to `ret`. Otherwise as fill_run. */
void run_statement(struct engine *e, struct job *j, uint64_t timeout_us, int abandon,
                   struct run_counts *ret);

/* ---- pieces -------------------------------------------------------------------------- */

/* pool_acquire for the job: sets its outcome and for how long it waited, and gives the time. */
int run_borrow(struct engine *e, struct job *j, bool verify, struct conn **ret,
               uint64_t *ret_us) _must_check_;
/* What a failure of conn_run, of a caller who watched `abandon`, is to be told as. */
enum outcome run_outcome(int r, int abandon);
/* Whether the statement failed only because of what ran beside it. */
bool run_is_conflict(const struct pg_result *r);
/* Sleeps before a retry, after `before` others: full jitter below a bound that doubles. False, at
 * once, when the deadline would be over then. */
bool run_pause(unsigned before, uint64_t deadline_us) _must_check_;
/* One line, if the job's outcome is a failure of its statement. */
void run_log_failure(const struct job *j);

#endif
