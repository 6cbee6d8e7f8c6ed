/*
 * grants: the least that a role needs to run the server, as SQL.
 *
 * Of each endpoint's statement it asks PostgreSQL which rights the role itself must have: on what
 * the statement names, and on what is reached with the caller's own rights from there (functions
 * in SQL, views with security_invoker, policies; defaults, checks and indexes of what is written
 * to), but not what a view or a SECURITY DEFINER function does with its owner's, nor what a trigger
 * does. Nothing is changed in the database: all is rolled back.
 */
#ifndef PROVOST_GRANTS_H
#define PROVOST_GRANTS_H

#include "provost/errors.h"

struct admin;
struct catalog;

/* -EINVAL with errors, and nothing printed. */
int grants_print(struct admin *a, const struct catalog *catalog, const char *role, FILE *to,
                 struct errors *errs) _must_check_;

#endif
