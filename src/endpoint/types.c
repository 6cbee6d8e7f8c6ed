/* The words of endpoint files and what they stand for in PostgreSQL and HTTP. */
#include <errno.h>
#include <string.h>

#include "parse.h"
#include "value.h"

static const struct {
	const char *name;
	pg_oid oid, array_oid; /* pg_type.dat */
} types[] = {
    [TYPE_TEXT] = {"text", 25, 1009},
    [TYPE_INTEGER] = {"integer", 23, 1007},
    [TYPE_BIGINT] = {"bigint", 20, 1016},
    [TYPE_NUMBER] = {"number", 701, 1022},
    [TYPE_NUMERIC] = {"numeric", 1700, 1231},
    [TYPE_BOOLEAN] = {"boolean", 16, 1000},
    [TYPE_UUID] = {"uuid", 2950, 2951},
    [TYPE_DATE] = {"date", 1082, 1182},
    [TYPE_TIMESTAMP] = {"timestamp", 1184, 1185}, /* timestamptz */
    [TYPE_JSON] = {"json", 3802, 3807},           /* jsonb */
};

static const char *const methods[METHOD_COUNT] = {
    [METHOD_GET] = "GET",     [METHOD_POST] = "POST",     [METHOD_PUT] = "PUT",
    [METHOD_PATCH] = "PATCH", [METHOD_DELETE] = "DELETE",
};

static const char *const returns[] = {
    [RETURNS_UNSET] = "unset", [RETURNS_JSON] = "json", [RETURNS_ROWS] = "rows",
    [RETURNS_ROW] = "row",     [RETURNS_NONE] = "none",
};

const char *method_name(enum method m)
{
	ALWAYS((size_t)m < METHOD_COUNT);
	return methods[m];
}

int method_parse(const char *s, size_t n)
{
	for (int m = 0; m < METHOD_COUNT; m++)
		if (strlen(methods[m]) == n && memcmp(methods[m], s, n) == 0)
			return m;
	return -EINVAL;
}

const char *param_in_name(enum param_in in)
{
	switch (in) {
	case IN_PATH:
		return "path";
	case IN_QUERY:
		return "query";
	case IN_BODY:
		return "body";
	}
	ALWAYS(!"a place of parameters");
	return "";
}

const char *param_type_name(enum param_type t)
{
	ALWAYS((size_t)t < ELEMENTSOF(types));
	return types[t].name;
}

int param_type_parse(struct slice s)
{
	for (size_t t = 0; t < ELEMENTSOF(types); t++)
		if (slice_is(s, types[t].name))
			return (int)t;
	return -EINVAL;
}

pg_oid param_oid(const struct param *p)
{
	ALWAYS((size_t)p->type < ELEMENTSOF(types));
	/* An array of objects is one jsonb: what jsonb_to_recordset takes. */
	return p->array && !p->members ? types[p->type].array_oid : types[p->type].oid;
}

const char *returns_name(enum returns r)
{
	ALWAYS((size_t)r < ELEMENTSOF(returns));
	return returns[r];
}

int returns_parse(struct slice s)
{
	for (int r = RETURNS_JSON; r <= RETURNS_NONE; r++)
		if (slice_is(s, returns[r]))
			return r;
	return -EINVAL;
}
