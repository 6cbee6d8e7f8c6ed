/*
 * tags: what an answer is made from, as names whose generations can be raised.
 *
 * Of a table t: `t`, carried by what depends on the whole of it; `t:*`, carried by what depends on
 * rows of it; `t:column=value`, carried by what depends on those rows. Values are PostgreSQL's
 * canonical text. Names given by `tags=` are as they are written; an endpoint's own tag has a space
 * of its own. A tag is only ever a slot of the generations: nothing is stored here. Any thread.
 */
#ifndef PROVOST_TAGS_H
#define PROVOST_TAGS_H

#include "provost/endpoint.h"
#include "provost/generations.h"

/* Writes the slots of everything that the endpoint's answer for these values (one per parameter, or
 * NULL) carries, and returns how many. A dependency on rows whose value is NULL is one on the whole
 * table; an array gives a tag per element that is not NULL, and without any is one on the whole
 * table; where there would be more than `max`, a dependency on rows becomes one on its table. `max`
 * is at least TAGS_MIN. Not for opaque endpoints. */
size_t tags_of(const struct generations *g, const struct endpoint *e, const char *const *values,
               gen_slot *slot, size_t max);

/* More tables and names than this an endpoint cannot have: describing it says so. */
enum { TAGS_MIN = 128 };

/* A change of the table, for what depends on the whole of it: `t`. */
void tags_raise_table(struct generations *g, const char *table);
/* Of rows that are not known, for what depends on any: `t:*`. Not `t`. */
void tags_raise_rows(struct generations *g, const char *table);
/* Of the rows where the column has, or had, that value. Neither `t` nor `t:*`. */
void tags_raise_row(struct generations *g, const char *table, const char *column,
                    const char *value);

/* By hand: a tag as written, and where it has no colon also `TAG:*`, so that naming a table reaches
 * everything that depends on it. */
void tags_raise(struct generations *g, const char *tag, size_t n);
/* Everything that the endpoint of that name has answered. */
void tags_raise_endpoint(struct generations *g, const char *name);

#endif
