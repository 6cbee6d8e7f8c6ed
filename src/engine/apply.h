/*
 * apply: what a change of the database makes old.
 *
 * Of a table: its tag, the tags of the rows that the change names, and, unless it tells all that
 * endpoints are narrowed by, that of all its rows. Which columns those are is taken from the
 * catalogue in force once, and looked up from then on. One thread, which is to have got the
 * catalogue from its snapshot, after the change had come: an answer of a newer catalogue is then
 * one that had seen the change.
 */
#ifndef PROVOST_ENGINE_APPLY_H
#define PROVOST_ENGINE_APPLY_H

#include "provost/catalog.h"
#include "provost/change.h"
#include "provost/generations.h"

/* One column of one table that an endpoint is narrowed by. Borrows from the catalogue. */
struct narrowing {
	const char *table, *column;
};

/* Zeroed at first. */
struct narrowings {
	const struct catalog *of;
	struct narrowing *item; /* sorted, without repetitions */
	size_t count;
	bool failed; /* there was no memory: every change is one of unknown rows */
};

void narrowings_done(struct narrowings *n);

/* `catalog` may be NULL. Only changes of tables. */
void apply_change(struct generations *g, struct narrowings *n, const struct catalog *catalog,
                  const struct change *c);

#endif
