/*
 * discover: asks PostgreSQL what a statement reads.
 *
 * The statement becomes the body of a temporary function, in a transaction that is rolled back.
 * PostgreSQL notes on which objects a body depends, before it plans anything, and its catalogue
 * says on which those depend in turn. Load time only: out of memory exits.
 */
#ifndef PROVOST_ENGINE_DISCOVER_H
#define PROVOST_ENGINE_DISCOVER_H

#include "provost/conn.h"
#include "provost/endpoint.h"
#include "provost/strlist.h"

struct discovered_table {
	pg_oid oid;
	char *name;  /* as tags name it */
	bool system; /* PostgreSQL's own: no trigger can tell of its changes */
};

struct discovered {
	char *failure; /* why nothing is known, as a sentence that tells what to do; or NULL */
	struct discovered_table *table; /* each once */
	size_t tables;
	struct way *way; /* each once */
	size_t ways;
	struct strlist opaque; /* functions that may read what PostgreSQL does not know of */
	uint64_t meaning;      /* a hash of everything that the tables were found through */
	bool publishes;        /* it calls provost.publish */
};

/* 0 or what conn_command returns; a refusal by PostgreSQL is a `failure`. */
int discover(struct conn *c, const struct stmt *s, uint64_t deadline_us,
             struct discovered *ret) _must_check_;
void discovered_done(struct discovered *d);
#define _cleanup_discovered_ _cleanup_(discovered_done)

/* ---- pieces of SQL that this and dependencies.c have in common ----------------------- */

/* How tags name the relation `c` of the namespace `n`. */
#define SQL_TAG_NAME "CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname"

/* Whether the namespace `n` is PostgreSQL's own. */
#define SQL_IS_SYSTEM "n.nspname IN ('pg_catalog', 'information_schema')"

/* root (base, oid): for every relation of the CTE `base` (oid) the topmost ancestors of it and of
 * all that inherit from it. Going down first matters where a child has several parents: what it
 * holds is read, and written, through each of them. */
#define SQL_ROOTS(base)                                                                            \
	"down (base, member) AS ("                                                                 \
	"  SELECT oid, oid FROM " base " UNION"                                                    \
	"  SELECT d.base, i.inhrelid FROM down d"                                                  \
	"  JOIN pg_catalog.pg_inherits i ON i.inhparent = d.member),"                              \
	" up (base, member) AS ("                                                                  \
	"  SELECT base, member FROM down UNION"                                                    \
	"  SELECT u.base, i.inhparent FROM up u"                                                   \
	"  JOIN pg_catalog.pg_inherits i ON i.inhrelid = u.member),"                               \
	" root (base, oid) AS ("                                                                   \
	"  SELECT base, member FROM up u WHERE NOT EXISTS ("                                       \
	"   SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = u.member))"

#endif
