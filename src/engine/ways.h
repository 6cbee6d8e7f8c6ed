/*
 * ways: whether the views, policies and functions through which an endpoint's tables were found
 * are still those that it was loaded with, for then other tables may matter, or other rows.
 *
 * One thread, that of coverage. Out of memory exits.
 */
#ifndef PROVOST_ENGINE_WAYS_H
#define PROVOST_ENGINE_WAYS_H

#include "provost/conn.h"

struct catalog;
struct endpoint;
struct way;

/* One, as it was seen. */
struct way_seen {
	pg_oid oid;
	bool routine;
	uint64_t digest; /* of what it means */
	uint64_t
	    version; /* of its rows in the catalogue: another after it was made anew, the same */
};

struct ways {
	struct way_seen *seen; /* sorted */
	size_t n;
};

/* Looks at all ways of the catalogue's endpoints. As conn_run; a refusal is in `*ret_refusal`, for
 * the caller to free. */
int ways_look(struct conn *conn, const struct catalog *c, uint64_t deadline_us, struct ways *ret,
              struct pg_result **ret_refusal) _must_check_;
void ways_done(struct ways *w);
#define _cleanup_ways_ _cleanup_(ways_done)

/* The first that is not as the endpoint was loaded with, or NULL. */
const struct way *ways_replaced(const struct ways *now, const struct endpoint *e);
/* Whether one of the endpoint's was made anew between the two looks, or may have been. */
bool ways_changed(const struct ways *before, const struct ways *now, const struct endpoint *e);

/* ---- pieces of SQL that this and discover.c have in common --------------------------- */

/* All of PostgreSQL's own is named in full: this is run with any search_path, and concat_ws takes
 * anything, so that one in another schema can fit better. */

/* A stored tree without the places in the text that it was made of: names have their blanks
 * escaped, so none can look like a field. */
#define SQL_TREE(tree)                                                                             \
	"pg_catalog.regexp_replace(" tree                                                          \
	"::pg_catalog.text, ' :(location|stmt_location|stmt_len) -?[0-9]+', '', 'g')"

/* clang-format off */

/* What a relation `c` means to who reads it, as far as it can be replaced: of a view its rule, of
 * a table its policies. Of both whose rights they use, and of neither who owns it otherwise. */
#define SQL_MEANING_OF_RELATION \
	"pg_catalog.md5(pg_catalog.concat_ws(' ', c.relkind, c.relrowsecurity, c.relforcerowsecurity," \
	" CASE WHEN c.relkind = 'v' OR c.relrowsecurity THEN c.relowner END," \
	" CASE c.relkind WHEN 'v' THEN c.reloptions::pg_catalog.text END," \
	" (SELECT " SQL_TREE("w.ev_action") " FROM pg_catalog.pg_rewrite w" \
	"  WHERE c.relkind = 'v' AND w.ev_class = c.oid AND w.ev_type = '1')," \
	" (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', y.polcmd, y.polpermissive," \
	"  y.polroles::pg_catalog.text," \
	"  " SQL_TREE("y.polqual") "), ' ' ORDER BY y.polname) FROM pg_catalog.pg_policy y" \
	"  WHERE c.relrowsecurity AND y.polrelid = c.oid AND y.polcmd IN ('r', '*'))))"

/* The same of a function `p`. Who calls it has its defaults from here, not from what was parsed. */
#define SQL_MEANING_OF_ROUTINE \
	"pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, " SQL_TREE("p.prosqlbody") "," \
	" p.provolatile, p.prosecdef, CASE WHEN p.prosecdef THEN p.proowner END," \
	" p.proconfig::pg_catalog.text, " SQL_TREE("p.proargdefaults") "))"

/* clang-format on */

#endif
