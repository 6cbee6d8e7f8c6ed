/*
 * run: one statement from a connection to its answer, with the tries that a read may have.
 */
#ifndef PROVOST_ENGINE_RUN_H
#define PROVOST_ENGINE_RUN_H

#include "engine_impl.h"

/* Runs the job's statement and makes its answer; logs what failed. Notes the generation and the
 * time just before each try is sent. Otherwise as fill_run. */
void run_statement(struct engine *e, struct job *j, uint64_t timeout_us, int abandon,
                   struct run_counts *ret);

#endif
