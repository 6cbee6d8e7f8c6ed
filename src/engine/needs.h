/*
 * needs: what must be told of tables, for endpoints to be cached. Load time; out of memory exits.
 */
#ifndef PROVOST_ENGINE_NEEDS_H
#define PROVOST_ENGINE_NEEDS_H

#include "provost/endpoint.h"

struct catalog;

/* Tables that are topmost in their trees, each with a column that endpoints are narrowed by, or
 * with NULL; in any order, perhaps repeated. */
struct needs {
	struct need {
		pg_oid table;
		char *column;
	} * need;
	size_t n;
};
void needs_done(struct needs *l);
#define _cleanup_needs_ _cleanup_(needs_done)

void needs_add(struct needs *l, pg_oid table, const char *column);
/* Those of all endpoints whose dependencies are known. */
void needs_of_catalog(struct needs *l, const struct catalog *c);

/* The parameters of coverage.sql: $1 as oid[], $2 as text[]. The caller frees. */
char *needs_tables(const struct needs *l);
char *needs_columns(const struct needs *l);

/* The columns of the result of coverage.sql. A problem's kind is NULL where there is none. */
extern const char coverage_sql[];
enum {
	COVERAGE_ROOT,
	COVERAGE_MEMBER,
	COVERAGE_NAME,
	COVERAGE_KIND,
	COVERAGE_WHY,
	COVERAGE_DIGEST
};

#endif
