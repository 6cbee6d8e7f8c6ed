#include <errno.h>
#include <libpq-fe.h>
#include <string.h>

#include "dependencies.h"
#include "provost/catalog.h"
#include "provost/conn.h"
#include "provost/engine.h"
#include "provost/key.h"

enum { OID_JSON = 114, OID_JSONB = 3802 };

/* Byte offset of the `chars`-th character (from 1), which is how PostgreSQL counts. */
static size_t byte_of_char(const char *sql, size_t chars)
{
	size_t i = 0;
	for (size_t seen = 1; sql[i] && seen < chars; seen++)
		do
			i++;
		while (((unsigned char)sql[i] & 0xC0) == 0x80);
	return i;
}

static void add_refusal(const struct endpoint *e, const struct pg_result *result,
                        struct errors *errs)
{
	const PGresult *r = (const PGresult *)result;
	const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	const char *hint = PQresultErrorField(r, PG_DIAG_MESSAGE_HINT);
	const char *at = PQresultErrorField(r, PG_DIAG_STATEMENT_POSITION);
	unsigned line = e->sql_line;
	/* Most often a new endpoint, of tables that none has read before. */
	if (!hint && strcmp(conn_sqlstate(result), "42501") == 0)
		hint = "`provost grants print` prints what the server's role needs";
	if (at)
		line = endpoint_sql_line(e, byte_of_char(e->stmt.sql, strtoul(at, NULL, 10)));
	errors_add(errs, e->file, line, "PostgreSQL refuses the statement: %s (SQLSTATE %s)%s%s",
	           message ? message : "no reason given", conn_sqlstate(result),
	           hint ? "; hint: " : "", hint ? hint : "");
}

static bool is_json(const PGresult *r)
{
	return PQnfields(r) == 1 && (PQftype(r, 0) == OID_JSON || PQftype(r, 0) == OID_JSONB);
}

static void check_columns(struct endpoint *e, const struct pg_result *result, struct errors *errs)
{
	const PGresult *r = (const PGresult *)result;
	int n = PQnfields(r);
	if (e->returns == RETURNS_UNSET)
		e->returns = is_json(r) ? RETURNS_JSON : RETURNS_ROWS;
	if (e->returns == RETURNS_JSON && !is_json(r))
		errors_add(errs, e->file, e->sql_line,
		           "@returns json needs exactly one column of type json or jsonb; the "
		           "statement has %d column%s",
		           n, n == 1 ? " of another type" : "s");
	if ((e->returns == RETURNS_ROWS || e->returns == RETURNS_ROW) && n == 0)
		errors_add(errs, e->file, e->sql_line,
		           "@returns %s needs a statement that returns columns",
		           returns_name(e->returns));
	for (int i = 0; i < n && e->returns != RETURNS_JSON; i++)
		for (int k = 0; k < i; k++)
			if (!strcmp(PQfname(r, i), PQfname(r, k)))
				errors_add(errs, e->file, e->sql_line,
				           "two columns are named \"%s\": give one another name "
				           "with AS",
				           PQfname(r, i));
}

/* Planning asks for the rights that running would, and shows what kind of statement it is. */
static void check_plan(const struct endpoint *e, const struct pg_result *columns,
                       const struct pg_result *result, struct errors *errs)
{
	const PGresult *r = (const PGresult *)result;
	if (*conn_sqlstate(result)) {
		add_refusal(e, result, errs);
		return;
	}
	const char *plan = PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "";
	if (e->method == METHOD_GET && (strstr(plan, "\"Node Type\": \"ModifyTable\"") ||
	                                strstr(plan, "\"Node Type\": \"LockRows\"")))
		errors_add(errs, e->file, e->sql_line,
		           "a GET must not change or lock rows: it may be repeated and cached");
	else if (e->method == METHOD_GET && PQnfields((const PGresult *)columns) == 0 &&
	         e->returns == RETURNS_NONE)
		errors_add(errs, e->file, e->sql_line,
		           "a GET must read: this statement returns no columns, so it would change "
		           "something");
}

static int check_statement(struct conn *c, struct endpoint *e, uint64_t deadline_us,
                           struct pg_result **ret_columns, struct errors *errs)
{
	_cleanup_result_ struct pg_result *plan = NULL;
	int r = conn_describe(c, &e->stmt, deadline_us, ret_columns);
	if (r < 0)
		return r;
	if (*conn_sqlstate(*ret_columns)) {
		add_refusal(e, *ret_columns, errs);
		return 0;
	}
	check_columns(e, *ret_columns, errs);
	r = conn_explain(c, &e->stmt, deadline_us, &plan);
	if (r == 0)
		check_plan(e, *ret_columns, plan, errs);
	return r;
}

static int describe(struct conn *c, struct endpoint *e, uint64_t deadline_us, struct errors *errs)
{
	_cleanup_result_ struct pg_result *columns = NULL;
	size_t before = errors_count(errs);
	int r = check_statement(c, e, deadline_us, &columns, errs);
	if (r < 0 || e->method != METHOD_GET)
		return r;
	if (errors_count(errs) > before)
		return dependencies_check(c, e, deadline_us, errs);
	return dependencies_find(c, e, columns, deadline_us, errs);
}

int engine_describe(struct catalog *c, const char *url, bool prepare, int interrupt,
                    uint64_t deadline_us, struct errors *errs)
{
	size_t before = errors_count(errs);
	_cleanup_conn_ struct conn *conn = conn_open(url, prepare, interrupt, deadline_us, errs);
	if (!conn)
		return errors_count(errs) > before ? -ENOTCONN : -ECANCELED;
	for (size_t i = 0; i < c->endpoints; i++) {
		int r = describe(conn, c->endpoint[i], deadline_us, errs);
		if (r == -ECANCELED)
			return r;
		if (r < 0) {
			errors_add(errs, NULL, 0,
			           "the database %s while the endpoints were being checked",
			           r == -ETIMEDOUT ? "did not answer in time" : "went away");
			return -ENOTCONN;
		}
		key_seal(c->endpoint[i]); /* all that its answers' meaning depends on is known */
	}
	return errors_count(errs) > before ? -EINVAL : 0;
}
