#include "admin.h"

#include <errno.h>
#include <string.h>

static void ignore_notice(void *arg, const PGresult *r)
{
	(void)arg;
	(void)r;
}

/* Several lines of libpq's as one. */
static char *one_line(const char *text)
{
	char *line = xstrdup(text);
	size_t n = strlen(line);

	while (n > 0 && line[n - 1] == '\n')
		line[--n] = '\0';
	for (char *p = line; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
	return line;
}

int admin_open(struct admin *a, const char *url, struct errors *errs)
{
	/* What the URL says comes before what stands in front of it. */
	static const char *const keys[] = {
	    "connect_timeout", "fallback_application_name", "dbname", "client_encoding", NULL,
	};
	const char *const values[] = {"10", "provost", url, "UTF8", NULL};

	a->pg = PQconnectdbParams(keys, values, 1);
	if (PQstatus(a->pg) != CONNECTION_OK) {
		_cleanup_free_ char *why = one_line(PQerrorMessage(a->pg));

		errors_add(errs, NULL, 0, "cannot connect to the database: %s", why);
		admin_close(a);
		return -ENOTCONN;
	}
	PQsetNoticeReceiver(a->pg, ignore_notice, NULL);
	if (admin_run(a, "cannot use the database", ADMIN_OWN_PATH, errs) == 0)
		return 0;
	admin_close(a);
	return -ENOTCONN;
}

void admin_close(struct admin *a)
{
	PQfinish(a->pg);
	a->pg = NULL;
}

static const char *what_to_do(const char *sqlstate)
{
	if (strcmp(sqlstate, "42501") == 0)
		return "; run this as the owner of the database (PROVOST_DATABASE_URL or "
		       "--database)";
	if (strcmp(sqlstate, "3F000") == 0 || strcmp(sqlstate, "42P01") == 0)
		return "; run `provost schema install` first";
	if (strcmp(sqlstate, "55P03") == 0)
		return "; another command is at it: try again";
	if (strcmp(sqlstate, "25006") == 0)
		return "; let the URL name the primary";
	return "";
}

static bool is_good(const PGresult *r)
{
	ExecStatusType s = PQresultStatus(r);

	return s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK || s == PGRES_EMPTY_QUERY;
}

static void add_failure(struct admin *a, const char *what, const PGresult *r, struct errors *errs)
{
	const char *sqlstate = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
	const char *message = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	_cleanup_free_ char *why = one_line(message ? message : PQerrorMessage(a->pg));

	errors_add(errs, NULL, 0, "%s: %s%s", what, why, sqlstate ? what_to_do(sqlstate) : "");
}

PGresult *admin_query(struct admin *a, const char *what, const char *sql, int n,
                      const char *const *values, struct errors *errs)
{
	PGresult *r = PQexecParams(a->pg, sql, n, NULL, values, NULL, NULL, 0);

	if (is_good(r))
		return r;
	add_failure(a, what, r, errs);
	PQclear(r);
	return NULL;
}

int admin_run(struct admin *a, const char *what, const char *sql, struct errors *errs)
{
	PGresult *r = PQexec(a->pg, sql);
	bool good = is_good(r);

	if (!good)
		add_failure(a, what, r, errs);
	PQclear(r);
	return good ? 0 : -EINVAL;
}
