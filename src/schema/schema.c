#include "schema.h"

#include <errno.h>
#include <string.h>

#include "admin.h"

/* Two installations at once would both create what neither sees. The number is any that nobody else
 * uses. */
static const char BEGIN[] = "/* provost */ BEGIN READ WRITE;"
                            " SET LOCAL client_min_messages = warning;"
                            " SET LOCAL lock_timeout = '10s';"
                            " SELECT pg_advisory_xact_lock(7237128888997146477)";

/* The comment (NULL: none), and whether there is a schema, with something in it. */
static const char LOOK[] =
    "/* provost */ SELECT obj_description(n.oid, 'pg_namespace'),"
    " n.oid IS NOT NULL AND (EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid)"
    " OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid))"
    " FROM (SELECT to_regnamespace('provost')::oid) n(oid)";

#define COMMENT_PREFIX "Provost, version "

/* -1: nothing is there; -EINVAL with an error. */
static int version_there(const PGresult *r, int *ret, struct errors *errs)
{
	const char *comment = PQgetisnull(r, 0, 0) ? "" : PQgetvalue(r, 0, 0);
	bool something = *PQgetvalue(r, 0, 1) == 't';
	size_t n = strlen(COMMENT_PREFIX);
	char *end = NULL;
	long version = -1;

	if (strncmp(comment, COMMENT_PREFIX, n) == 0)
		version = strtol(comment + n, &end, 10);
	if (version >= 0 && version <= SCHEMA_VERSION && end != comment + n && !*end) {
		*ret = (int)version;
		return 0;
	}
	if (version > SCHEMA_VERSION)
		errors_add(errs, NULL, 0,
		           "the schema `provost` is of version %ld, and this Provost knows none "
		           "beyond %d: use the Provost that installed it, or a later one",
		           version, SCHEMA_VERSION);
	else if (something)
		errors_add(errs, NULL, 0,
		           "there is a schema `provost` that Provost did not make: rename it, or "
		           "use another database");
	else {
		*ret = -1;
		return 0;
	}
	return -EINVAL;
}

static int install(struct admin *a, int *ret_before, struct errors *errs)
{
	static const char what[] = "the schema cannot be installed";
	_cleanup_free_ char *comment =
	    xasprintf("COMMENT ON SCHEMA provost IS '%s%d'", COMMENT_PREFIX, SCHEMA_VERSION);
	_cleanup_pgresult_ PGresult *found = NULL;
	int r;

	if (admin_run(a, what, BEGIN, errs) < 0)
		return -EINVAL;
	found = admin_query(a, what, LOOK, 0, NULL, errs);
	r = found ? version_there(found, ret_before, errs) : -EINVAL;
	if (r == 0)
		r = admin_run(a, what, schema_sql, errs);
	if (r == 0)
		r = admin_run(a, what, comment, errs);
	if (r == 0)
		r = admin_run(a, what, "COMMIT", errs);
	return r;
}

int schema_install(struct admin *a, int *ret_before, struct errors *errs)
{
	int r = install(a, ret_before, errs);

	if (r < 0)
		PQclear(PQexec(a->pg, "ROLLBACK"));
	return r;
}
