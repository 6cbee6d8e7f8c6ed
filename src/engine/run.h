/*
 * run: one job from a connection to its answer, with the tries that a read may have.
 */
#ifndef PROVOST_ENGINE_RUN_H
#define PROVOST_ENGINE_RUN_H

#include "provost/engine.h"

/* Runs the job's statement, makes the answer, logs what failed, and calls `done`; the outcome is
 * returned because the job is its submitter's again by then. All tries together take at most
 * `timeout_us`, waiting for connections aside. Once the descriptor `abandon` is readable the
 * statement is cancelled. Blocks: workers only. */
enum outcome run_job(struct pool *pool, struct job *j, uint64_t timeout_us, int abandon,
                     unsigned *ret_retries);

#endif
