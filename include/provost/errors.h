/*
 * errors: what is wrong with files an operator wrote, all of it at once.
 *
 * Load-time code appends; whoever started the load prints. Each entry is `file:line: sentence`,
 * and the sentence says what to do. Bounded: past ERRORS_MAX entries are counted, not kept.
 * Owned by one thread at a time; takes copies of what it is given.
 */
#ifndef PROVOST_ERRORS_H
#define PROVOST_ERRORS_H

#include "provost/base.h"

enum { ERRORS_MAX = 200 };

struct errors;

struct errors *errors_new(void);
void errors_free(struct errors **e);
#define _cleanup_errors_ _cleanup_(errors_free)

/* Appends one error. `file` may be NULL (no place), `line` 0 (the whole file). */
void errors_add(struct errors *e, const char *file, unsigned line, const char *fmt, ...)
    _printf_(4, 5);

/* All errors so far, kept or only counted. */
size_t errors_count(const struct errors *e);

/* The i-th kept error as `file:line: sentence`, or NULL past the last. Valid until errors_free. */
const char *errors_text(const struct errors *e, size_t i);

/* One line each to `to`, and how many more there were. */
void errors_print(const struct errors *e, FILE *to);

#endif
