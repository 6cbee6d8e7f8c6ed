/*
 * admin: a plain connection for commands that administer: it blocks, and may write.
 *
 * What the server does goes through conn.h. Errors say what the database said in one line.
 */
#ifndef PROVOST_ADMIN_H
#define PROVOST_ADMIN_H

#include <libpq-fe.h>

#include "provost/errors.h"

struct admin {
	PGconn *pg;
};

/* With the owner's rights, nothing may be taken for PostgreSQL's own that others have put in front
 * of it: sessions begin with this. */
#define ADMIN_OWN_PATH   "/* provost */ SET search_path = pg_catalog, pg_temp"
#define ADMIN_USERS_PATH "/* provost */ SET LOCAL search_path TO DEFAULT"

/* `url` as libpq takes it. -ENOTCONN with an error. */
int admin_open(struct admin *a, const char *url, struct errors *errs) _must_check_;
void admin_close(struct admin *a);
#define _cleanup_admin_ _cleanup_(admin_close)

/* One statement; NULL with an error that begins with `what`. */
PGresult *admin_query(struct admin *a, const char *what, const char *sql, int n,
                      const char *const *values, struct errors *errs) _must_check_;
/* Any number of statements, without results. -EINVAL. */
int admin_run(struct admin *a, const char *what, const char *sql, struct errors *errs) _must_check_;

static inline void admin_clear(PGresult **r)
{
	PQclear(*r);
	*r = NULL;
}
#define _cleanup_pgresult_ _cleanup_(admin_clear)

#endif
