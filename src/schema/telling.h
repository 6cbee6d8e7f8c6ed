/*
 * telling: the SQL of the triggers that tell of changes of one table.
 *
 * A table's function is generated with its columns in it, because a statement with a plan that is
 * kept is faster than one that is put together each time. Pure functions over what triggers.sql
 * has found; out of memory exits.
 */
#ifndef PROVOST_SCHEMA_TELLING_H
#define PROVOST_SCHEMA_TELLING_H

#include "provost/buf.h"

enum { TELLING_TRIGGERS = 4 };

struct told_column {
	const char *name, *ident, *json; /* plain, as SQL, as JSON */
	bool key;                        /* the primary key */
};

/* A tree that the table is in, and what is told to those who read it. */
struct told {
	const char *tag, *json; /* of the topmost table */
	struct told_column *column;
	size_t columns;
};

/* A table. Borrows its texts from the result that it was read from; owns its arrays. */
struct telling {
	const char *name; /* as tags call it */
	const char *sql;  /* as SQL does */
	const char *function;
	const char *strangers;                 /* as SQL, who may have rights on it */
	const char *source;                    /* of the function that is there, or NULL */
	const char *trigger[TELLING_TRIGGERS]; /* those that are there, or NULL */
	const char *owner;
	bool may; /* we own it */
	struct told *told;
	size_t tolds;
};
void telling_done(struct telling *t);

/* The function's body. The caller frees. */
char *telling_source(const struct telling *t);
/* A trigger as pg_get_triggerdef prints it, for a function with that body. The caller frees. */
char *telling_trigger(const struct telling *t, const char *source, size_t i);

/* Appends the statements, each ended by a semicolon and a newline, that make of what is there what
 * is wanted: none where it is there already. */
void telling_install(const struct telling *t, struct buf *b);

#endif
