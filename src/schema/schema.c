#include "schema.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "admin.h"

extern const char schema_sql[];

/* Two installations at once would both create what neither sees. The number is any that nobody else
 * uses. */
static const char BEGIN[] = "/* provost */ BEGIN READ WRITE;"
                            " SET LOCAL client_min_messages = warning;"
                            " SET LOCAL lock_timeout = '10s';"
                            " SELECT pg_advisory_xact_lock(7237128888997146477)";

/* The comment (NULL: none), and whether there is a schema, with something in it. Whatever its kind,
 * what is in a schema depends on it. */
static const char LOOK[] =
    "/* provost */ SELECT obj_description(n.oid, 'pg_namespace'),"
    " EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass"
    " AND refobjid = n.oid)"
    " FROM (SELECT to_regnamespace('provost')::oid) n(oid)";

/* Who owns the schema can replace what is in it, and who can write in it can do so before us: a
 * sentence for each such role that is neither the one that installs nor a superuser. Membership
 * does not count, for a superuser is a member of every role. */
static const char STRANGERS[] =
    "/* provost */ WITH s AS (SELECT * FROM pg_namespace WHERE nspname = 'provost'),"
    " own AS (SELECT oid FROM pg_roles WHERE rolsuper OR rolname = current_user)"
    " SELECT format('the schema `provost` belongs to the role `%s`, which can replace what is in"
    " it: run this as that role if it is the owner of the database, else first run: ALTER SCHEMA"
    " provost OWNER TO %I', pg_get_userbyid(nspowner), current_user)"
    " FROM s WHERE nspowner NOT IN (SELECT oid FROM own)"
    " UNION ALL SELECT DISTINCT format('others may create objects in the schema `provost`; first"
    " run: REVOKE CREATE ON SCHEMA provost FROM %s',"
    " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)"
    " FROM s, aclexplode(nspacl) WHERE privilege_type = 'CREATE' AND grantee <> nspowner"
    " AND grantee NOT IN (SELECT oid FROM own)"
    " UNION ALL SELECT format('`%s` belongs to the role `%s`, which can change it: see what it"
    " holds, then drop it or give it to %I (ALTER ... OWNER TO)', what, pg_get_userbyid(owner),"
    " current_user)"
    " FROM (SELECT format('provost.%s', relname), relowner FROM pg_class, s"
    " WHERE relnamespace = s.oid AND relkind <> 'i'"
    " UNION ALL SELECT format('provost.%s', proname), proowner FROM pg_proc, s"
    " WHERE pronamespace = s.oid) o(what, owner) WHERE owner NOT IN (SELECT oid FROM own)";

/* Who can write a key's digest can make a key. Rights on columns count too, and a REVOKE on the
 * table takes them as well. */
static const char WRITERS[] =
    "/* provost */ SELECT"
    " CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,"
    " string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type)"
    " FROM pg_class c, LATERAL (SELECT grantee, privilege_type FROM aclexplode(c.relacl)"
    " UNION SELECT x.grantee, x.privilege_type FROM pg_attribute t, aclexplode(t.attacl) x"
    " WHERE t.attrelid = c.oid) g"
    " WHERE c.oid = 'provost.api_key'::regclass AND g.grantee <> c.relowner"
    " AND g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')"
    " AND g.grantee NOT IN (SELECT oid FROM pg_roles WHERE rolsuper) GROUP BY g.grantee ORDER BY 1";

#define COMMENT_PREFIX "Provost, version "
#define COMMENT        "COMMENT ON SCHEMA provost IS '" COMMENT_PREFIX "%d'"

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

static const char what[] = "the schema cannot be installed";

static int refuse_strangers(struct admin *a, struct errors *errs)
{
	_cleanup_pgresult_ PGresult *found = admin_query(a, what, STRANGERS, 0, NULL, errs);

	if (!found)
		return -EINVAL;
	for (int i = 0; i < PQntuples(found); i++)
		errors_add(errs, NULL, 0, "%s", PQgetvalue(found, i, 0));
	return PQntuples(found) > 0 ? -EINVAL : 0;
}

static void warn_of_writers(const PGresult *found)
{
	for (int i = 0; i < PQntuples(found); i++) {
		const char *role = PQgetvalue(found, i, 0), *rights = PQgetvalue(found, i, 1);

		fprintf(
		    stderr,
		    "provost schema install: warning: %s has %s on provost.api_key, and so a say "
		    "in who may call the server; unless that is meant, run: REVOKE %s ON "
		    "provost.api_key FROM %s\n",
		    role, rights, rights, role);
	}
}

static int install(struct admin *a, int *ret_before, struct errors *errs)
{
	_cleanup_free_ char *comment = xasprintf(COMMENT, SCHEMA_VERSION);
	_cleanup_pgresult_ PGresult *found = NULL, *writers = NULL;
	int r;

	if (admin_run(a, what, BEGIN, errs) < 0)
		return -EINVAL;
	found = admin_query(a, what, LOOK, 0, NULL, errs);
	r = found ? version_there(found, ret_before, errs) : -EINVAL;
	if (r == 0)
		r = refuse_strangers(a, errs);
	if (r == 0)
		r = admin_run(a, what, schema_sql, errs);
	/* Again: the advisory lock keeps nobody else from creating a schema meanwhile. */
	if (r == 0)
		r = refuse_strangers(a, errs);
	if (r == 0)
		r = admin_run(a, what, comment, errs);
	if (r == 0) {
		writers = admin_query(a, what, WRITERS, 0, NULL, errs);
		r = writers ? 0 : -EINVAL;
	}
	if (r == 0)
		r = admin_run(a, what, "COMMIT", errs);
	if (r == 0)
		warn_of_writers(writers);
	return r;
}

void schema_print(FILE *to)
{
	fprintf(to, "%s\n" COMMENT ";\n", schema_sql, SCHEMA_VERSION);
}

int schema_install(struct admin *a, int *ret_before, struct errors *errs)
{
	int r = install(a, ret_before, errs);

	if (r < 0)
		PQclear(PQexec(a->pg, "ROLLBACK"));
	return r;
}
