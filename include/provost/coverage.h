/*
 * coverage: whether changes of the tables that an endpoint's answers are made from are told.
 *
 * A table is covered when it, and every member of its tree, is an ordinary or partitioned table
 * with the triggers of `provost triggers install` on it, enabled always, that name its tag and tell
 * all the columns by which endpoints are narrowed. An endpoint with a table that is not covered is
 * served, but neither cached nor collapsed (endpoint_is_cached, endpoint_is_collapsed), until it
 * is.
 *
 * Nor is one kept whose tables were found through a view, a policy or a function that has been
 * replaced since, until it is loaded again: other tables may matter now.
 *
 * One thread. What was seen at the last look outlives the catalogue that it was made for: an
 * endpoint that a reload has replaced finds nothing from a time when its tables were not covered.
 */
#ifndef PROVOST_COVERAGE_H
#define PROVOST_COVERAGE_H

#include "provost/errors.h"

struct catalog;
struct conn;
struct coverage;
struct generations;

struct coverage *coverage_new(struct generations *g);
void coverage_free(struct coverage **v);

/* Looks at the triggers of all tables that endpoints of the catalogue depend on, and sets what
 * endpoints are from now on: also of a catalogue that is being served (any thread may be reading
 * it). Where a table, its tree, its triggers, or what leads to it are others than at the look
 * before, or were not looked at, changes may have been missed, and what was stored of its endpoints
 * is raised first. Logs, once per table and change, which are not covered, why, and the command
 * that helps. Blocks until the deadline at most. 0; -ENOTCONN when the database went away, and
 * -ECANCELED when interrupted: nothing was changed; -EIO when it refused to tell, and all tables
 * count as not covered. */
int coverage_look(struct coverage *v, struct catalog *c, struct conn *conn,
                  uint64_t deadline_us) _must_check_;

/* Only says which endpoints are not covered, and why: a note for each table. As coverage_look. */
int coverage_check(const struct catalog *c, struct conn *conn, uint64_t deadline_us,
                   struct errors *notes) _must_check_;

#endif
