/*
 * grants: the least that a role needs to run the server, as SQL.
 *
 * Of each GET endpoint's statement it asks PostgreSQL what the role itself must have rights on:
 * what the statement names, and what is reached with the caller's own rights from there (functions
 * in SQL, views with security_invoker, policies), but not what a view or a SECURITY DEFINER
 * function reads with its owner's. Nothing is changed in the database: all is rolled back.
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
