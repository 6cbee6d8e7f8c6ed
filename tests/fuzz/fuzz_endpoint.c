/*
 * Any file: it is read, or refused with a reason. What is read has a sound statement: its binds are
 * numbered without gaps, its text has no parameter left, its positions lie in the file.
 */
#include <string.h>

#include "provost/buf.h"
#include "provost/endpoint.h"
#include "provost/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_binds(const struct endpoint *e)
{
	for (size_t i = 0; i < e->stmt.binds; i++) {
		ALWAYS(e->stmt.oid[i] != 0);
		ALWAYS(e->stmt.bind[i].source != BIND_PARAM || e->stmt.bind[i].index < e->params);
	}
	for (size_t i = 0; i < e->params; i++)
		ALWAYS(e->param[i].used && e->param[i].name && e->param[i].line > 0);
}

/* With every `$` that is a parameter taken away, the scanner finds nothing. */
static void check_statement(const struct endpoint *e)
{
	struct scan_result r = {0};
	const char *why;
	size_t pos;
	int err = scan_sql(e->stmt.sql, e->stmt.sql_len, &r, &pos, &why);

	ALWAYS(strlen(e->stmt.sql) == e->stmt.sql_len);
	if (err < 0)
		ALWAYS(e->stmt.binds > 0 && e->stmt.sql[pos] == '$');
	else
		ALWAYS(r.params == 0 && e->stmt.binds == 0);
	scan_result_done(&r);
}

static void check_lines(const struct endpoint *e, const uint8_t *data, size_t size)
{
	unsigned lines = 1;

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	ALWAYS(e->route_line >= 1 && e->route_line <= lines);
	ALWAYS(e->sql_line > e->route_line);
	ALWAYS(endpoint_sql_line(e, e->stmt.sql_len) <= lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_free_ char *text = xcalloc(size ? size : 1, 1);
	_cleanup_endpoint_ struct endpoint *e = NULL;

	memcpy(text, data, size);
	e = endpoint_parse("fuzz", "fuzz.sql", text, size, errs);
	ALWAYS((e != NULL) == (errors_count(errs) == 0));
	if (!e)
		return 0;
	check_binds(e);
	check_statement(e);
	check_lines(e, data, size);
	return 0;
}
