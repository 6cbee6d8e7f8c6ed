/*
 * dependencies: what an endpoint's answers are made from: what PostgreSQL knows of its statement,
 * and what its author says with @depends. Load time only.
 */
#ifndef PROVOST_ENGINE_DEPENDENCIES_H
#define PROVOST_ENGINE_DEPENDENCIES_H

#include "provost/conn.h"
#include "provost/endpoint.h"

/* Sets the dependencies of a GET, or why they are not known (`opaque`, which is logged), and has
 * its fingerprint tell of them and of `columns`, the statement's. What is wrong with @depends is
 * appended. 0 or what conn_command returns. */
int dependencies_find(struct conn *c, struct endpoint *e, const struct pg_result *columns,
                      uint64_t deadline_us, struct errors *errs) _must_check_;

/* Only appends what is wrong with @depends: where the statement is not good either. */
int dependencies_check(struct conn *c, const struct endpoint *e, uint64_t deadline_us,
                       struct errors *errs) _must_check_;

#endif
