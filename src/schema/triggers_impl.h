/*
 * What the files of the triggers share.
 *
 * triggers.c  which tables they are for, how they stand there, what would be installed
 * tellings.c  what they are to tell
 * install.c   installing and removing them
 */
#ifndef PROVOST_SCHEMA_TRIGGERS_IMPL_H
#define PROVOST_SCHEMA_TRIGGERS_IMPL_H

#include <libpq-fe.h>

#include "provost/errors.h"

struct admin;
struct needs;

/* A statement whose parameters are as those of coverage.sql. NULL with an error. */
PGresult *triggers_ask(struct admin *a, const char *sql, const struct needs *n,
                       struct errors *errs) _must_check_;
/* Those of `n` that can have triggers; of the others it is said why they cannot. -EINVAL with an
 * error. */
int triggers_supported(struct admin *a, const struct needs *n, struct needs *ret, FILE *notes,
                       struct errors *errs) _must_check_;

#endif
