/*
 * triggers: those by which the database tells of changes, for whoever owns the tables.
 *
 * Everything that changes something does so in one transaction, which waits for locks only briefly
 * and then begins anew, so that writers never queue behind it for long. Blocks; for commands.
 */
#ifndef PROVOST_SCHEMA_TRIGGERS_H
#define PROVOST_SCHEMA_TRIGGERS_H

#include "provost/errors.h"

struct admin;
struct needs;
struct strlist;

/* Adds the tables of these names to what is needed: as SQL writes names, by the session's
 * search_path. -EINVAL with an error for each that is no table. */
int triggers_name(struct admin *a, const struct strlist *names, struct needs *n,
                  struct errors *errs) _must_check_;

/* Installs what is missing or other than it should be, says of each table on `to` what was done,
 * and if anything was has all servers throw away what they have stored. Tables that cannot have
 * triggers are said on `notes`. -EINVAL with errors, and nothing changed. */
int triggers_install(struct admin *a, const struct needs *n, FILE *to, FILE *notes,
                     struct errors *errs) _must_check_;
/* Prints what installing on a database without triggers would do. */
int triggers_print(struct admin *a, const struct needs *n, FILE *to, FILE *notes,
                   struct errors *errs) _must_check_;
/* Removes triggers and functions of these trees; without `n` all there are. */
int triggers_remove(struct admin *a, const struct needs *n, FILE *to,
                    struct errors *errs) _must_check_;
/* Prints how each table stands. `*ret_good`: all of `n` are told of. */
int triggers_status(struct admin *a, const struct needs *n, FILE *to, bool *ret_good,
                    struct errors *errs) _must_check_;

#endif
