/*
 * tellings: what the triggers of tables are to tell, and what is there already, as triggers.sql
 * finds it. Blocks; for commands.
 */
#ifndef PROVOST_SCHEMA_TELLINGS_H
#define PROVOST_SCHEMA_TELLINGS_H

#include <libpq-fe.h>

#include "provost/errors.h"
#include "telling.h"

struct admin;
struct needs;

/* Members of a tree stand together, its topmost table first. Owns the result that the texts are in.
 */
struct tellings {
	PGresult *rows;
	struct telling *telling;
	size_t n;
};
void tellings_done(struct tellings *l);
#define _cleanup_tellings_ _cleanup_(tellings_done)

/* Into an empty list. -EINVAL with an error. */
int tellings_read(struct admin *a, const struct needs *n, struct tellings *ret,
                  struct errors *errs) _must_check_;
/* As if there were nothing yet. */
void tellings_forget_what_is_there(struct tellings *l);

#endif
