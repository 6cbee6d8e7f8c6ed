#include "provost/rows.h"

#include <libpq-fe.h>
#include <string.h>

/* Types of pg_type.dat whose numbers never change. */
enum {
	OID_BOOL = 16,
	OID_INT8 = 20,
	OID_INT2 = 21,
	OID_INT4 = 23,
	OID_TEXT = 25,
	OID_OID = 26,
	OID_JSON = 114,
	OID_FLOAT4 = 700,
	OID_FLOAT8 = 701,
	OID_TIMESTAMP = 1114,
	OID_TIMESTAMPTZ = 1184,
	OID_NUMERIC = 1700,
	OID_JSONB = 3802,
};

/* Array types and their elements; arrays of types that somebody made are shown as PostgreSQL writes
 * them. */
static const uint32_t ARRAYS[][2] = {
    {1000, OID_BOOL},   {1005, OID_INT2},   {1007, OID_INT4},      {1016, OID_INT8},
    {1021, OID_FLOAT4}, {1022, OID_FLOAT8}, {1231, OID_NUMERIC},   {199, OID_JSON},
    {3807, OID_JSONB},  {1028, OID_OID},    {1115, OID_TIMESTAMP}, {1185, OID_TIMESTAMPTZ},
};

/* Those whose elements are shown as strings: text, varchar, bpchar, name, "char", uuid, date, time,
 * timetz, interval, bytea, bit, varbit, inet, cidr, macaddr, point, and the ranges. */
static const uint32_t STRING_ARRAYS[] = {
    1009, 1015, 1014, 1003, 1002, 2951, 1182, 1183, 1270, 1187, 1001, 1561,
    1563, 1041, 651,  1040, 1017, 3905, 3927, 3907, 3913, 3909, 3911,
};

static uint32_t element_of(uint32_t oid)
{
	for (size_t i = 0; i < ELEMENTSOF(ARRAYS); i++)
		if (ARRAYS[i][0] == oid)
			return ARRAYS[i][1];
	for (size_t i = 0; i < ELEMENTSOF(STRING_ARRAYS); i++)
		if (STRING_ARRAYS[i] == oid)
			return OID_TEXT;
	return 0;
}

static void add_number(const char *s, size_t n, struct buf *out)
{
	/* NaN, Infinity, -Infinity. */
	bool finite = n > 0 && (s[n - 1] >= '0' && s[n - 1] <= '9');
	if (finite)
		buf_add(out, s, n);
	else
		buf_add_json_string(out, s, n);
}

/* `2026-01-02 03:04:05.678+00` to RFC 3339. Dates before Christ and infinity stay as they are. */
static void add_timestamp(const char *s, size_t n, bool zoned, struct buf *out)
{
	const char *blank = memchr(s, ' ', n);
	if (!blank || s[n - 1] == 'C') {
		buf_add_json_string(out, s, n);
		return;
	}
	buf_addc(out, '"');
	buf_add(out, s, (size_t)(blank - s));
	buf_addc(out, 'T');
	buf_add(out, blank + 1, n - (size_t)(blank - s) - 1);
	if (zoned)
		buf_adds(out, ":00"); /* sessions are in UTC: the offset is always +00 */
	buf_addc(out, '"');
}

/* One element of an array literal: `*p` stands on its first byte, and behind its last afterwards.
 */
static void add_element(uint32_t oid, const char **p, const char *end, struct buf *out)
{
	struct buf plain = {0};
	bool quoted = **p == '"';
	const char *s = *p + quoted;
	while (s < end && (quoted ? *s != '"' : *s != ',' && *s != '}')) {
		if (*s == '\\' && s + 1 < end)
			s++;
		buf_addc(&plain, *s++);
	}
	*p = s + (quoted && s < end);
	if (plain.failed)
		out->failed = true;
	else if (!quoted && plain.len == 4 && !memcmp(plain.data, "NULL", 4))
		buf_adds(out, "null");
	else
		rows_value(oid, plain.len ? plain.data : "", plain.len, out);
	buf_done(&plain);
}

/* array_out's form: `{1,2}`, `{{"a b",NULL},{c,d}}`, `[0:1]={1,2}`. */
static void add_array(uint32_t element, const char *s, size_t n, struct buf *out)
{
	const char *end = s + n, *p = s;
	if (*p == '[')
		p = memchr(p, '=', n) ? (const char *)memchr(p, '=', n) + 1 : end;
	while (p < end && !out->failed) {
		switch (*p) {
		case '{':
			buf_addc(out, '[');
			p++;
			break;
		case '}':
			buf_addc(out, ']');
			p++;
			break;
		case ',':
			buf_addc(out, ',');
			p++;
			break;
		default:
			add_element(element, &p, end, out);
		}
	}
}

void rows_value(uint32_t oid, const char *text, size_t len, struct buf *out)
{
	uint32_t element;
	switch (oid) {
	case OID_BOOL:
		buf_adds(out, *text == 't' ? "true" : "false");
		return;
	case OID_INT2:
	case OID_INT4:
	case OID_INT8:
	case OID_OID:
	case OID_FLOAT4:
	case OID_FLOAT8:
	case OID_NUMERIC:
		add_number(text, len, out);
		return;
	case OID_JSON:
	case OID_JSONB:
		buf_add(out, text, len);
		return;
	case OID_TIMESTAMP:
	case OID_TIMESTAMPTZ:
		add_timestamp(text, len, oid == OID_TIMESTAMPTZ, out);
		return;
	default:
		element = element_of(oid);
		if (element)
			add_array(element, text, len, out);
		else
			buf_add_json_string(out, text, len);
	}
}

void rows_object(const struct pg_result *result, int row, struct buf *out)
{
	const PGresult *r = (const PGresult *)result;
	buf_addc(out, '{');
	for (int i = 0; i < PQnfields(r); i++) {
		const char *name = PQfname(r, i);
		if (i > 0)
			buf_addc(out, ',');
		buf_add_json_string(out, name, strlen(name));
		buf_addc(out, ':');
		if (PQgetisnull(r, row, i))
			buf_adds(out, "null");
		else
			rows_value(PQftype(r, i), PQgetvalue(r, row, i),
			           (size_t)PQgetlength(r, row, i), out);
	}
	buf_addc(out, '}');
}
