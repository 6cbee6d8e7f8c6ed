/*
 * coverage: whether changes of the tables that an endpoint's answers are made from are told.
 *
 * A table is covered when it, and every member of its tree, is an ordinary or partitioned table
 * with the triggers of `provost triggers install` on it, enabled always, that name its tag and tell
 * all the columns by which endpoints are narrowed. An endpoint with a table that is not covered is
 * served, but neither cached nor collapsed (endpoint_is_cached, endpoint_is_collapsed), until it
 * is.
 */
#ifndef PROVOST_COVERAGE_H
#define PROVOST_COVERAGE_H

#include "provost/errors.h"

struct catalog;
struct conn;
struct generations;

/* Looks at the triggers of all tables that endpoints of the catalogue depend on, and sets what
 * endpoints are from now on: also of a catalogue that is being served (any thread may be reading
 * it). Where a table is covered now and was not at the look before, or its triggers are others than
 * then, changes may have been missed, and what was stored of its endpoints is raised first. Logs,
 * once per table and change, which are not covered, why, and the command that helps. One thread;
 * blocks until the deadline at most. 0; -ENOTCONN when the database went away, and nothing was
 * changed; -EIO when it refused to tell, and all tables count as not covered. */
int coverage_look(struct catalog *c, struct generations *g, struct conn *conn,
                  uint64_t deadline_us) _must_check_;

#endif
