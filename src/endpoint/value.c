#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include "value.h"

enum { NUMBER_TEXT_MAX = VALUES_NUMERIC_MAX };

void reason_set(char reason[VALUES_REASON_MAX], const char *fmt, ...)
{
	va_list ap;
	int n;
	size_t cut = VALUES_REASON_MAX - 1;

	va_start(ap, fmt);
	n = vsnprintf(reason, VALUES_REASON_MAX, fmt, ap);
	va_end(ap);
	if (n < VALUES_REASON_MAX)
		return;
	/* "…" takes three bytes, and stands behind a whole character. */
	cut -= 3;
	while (((unsigned char)reason[cut] & 0xc0) == 0x80)
		cut--;
	memcpy(reason + cut, "…", 4);
}

static int integer_canonical(const char *s, size_t n, int64_t min, int64_t max, struct buf *out)
{
	const char *p = s, *end = s + n;
	bool negative = false;
	int64_t v = 0;

	if (p < end && (*p == '+' || *p == '-'))
		negative = *p++ == '-';
	if (p == end)
		return -EINVAL;
	for (; p < end; p++) {
		int digit = *p - '0';

		if (digit < 0 || digit > 9)
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, negative ? -digit : digit, &v))
			return -ERANGE;
	}
	if (v < min || v > max)
		return -ERANGE;
	buf_addi(out, v);
	return 0;
}

/* A JSON number, but for a leading `+` and leading zeros, which do no harm. */
static bool is_number(const char *p, const char *end)
{
	const char *start;

	if (p < end && (*p == '+' || *p == '-'))
		p++;
	for (start = p; p < end && *p >= '0' && *p <= '9'; p++)
		;
	if (p == start)
		return false;
	if (p < end && *p == '.') {
		for (start = ++p; p < end && *p >= '0' && *p <= '9'; p++)
			;
		if (p == start)
			return false;
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		for (start = p; p < end && *p >= '0' && *p <= '9'; p++)
			;
		if (p == start)
			return false;
	}
	return p == end;
}

/* The process keeps the C locale (base never calls setlocale), so strtod and printf use a point. */
static int number_canonical(const char *s, size_t n, struct buf *out, const char **ret_why)
{
	char copy[NUMBER_TEXT_MAX + 1], text[32];
	double v;

	*ret_why = n > NUMBER_TEXT_MAX ? "must be at most 1000 characters long"
	                               : "must be a number, such as -12.5 or 1e3";
	if (n > NUMBER_TEXT_MAX || !is_number(s, s + n))
		return -EINVAL;
	memcpy(copy, s, n);
	copy[n] = '\0';
	v = strtod(copy, NULL);
	if (!isfinite(v)) {
		*ret_why = "must be a finite number, below 1.8e308 in size";
		return -EINVAL;
	}
	if (v == 0)
		v = 0; /* no -0 */
	for (int precision = 15; precision <= 17; precision++) {
		snprintf(text, sizeof(text), "%.*g", precision, v);
		if (strtod(text, NULL) == v)
			break;
	}
	buf_adds(out, text);
	return 0;
}

static int boolean_canonical(const char *s, size_t n, struct buf *out)
{
	if ((n == 4 && strncasecmp(s, "true", 4) == 0) || (n == 1 && *s == '1'))
		buf_adds(out, "true");
	else if ((n == 5 && strncasecmp(s, "false", 5) == 0) || (n == 1 && *s == '0'))
		buf_adds(out, "false");
	else
		return -EINVAL;
	return 0;
}

static int uuid_canonical(const char *s, size_t n, struct buf *out)
{
	char text[36];

	if (n != sizeof(text))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if (c >= 'A' && c <= 'F')
			c = (char)(c + 32);
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (c != '-')
				return -EINVAL;
		} else if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
			return -EINVAL;
		}
		text[i] = c;
	}
	buf_add(out, text, sizeof(text));
	return 0;
}

int value_canonical(enum param_type t, const char *s, size_t n, struct buf *out,
                    const char **ret_why)
{
	switch (t) {
	case TYPE_INTEGER:
		*ret_why = "must be an integer from -2147483648 to 2147483647";
		return integer_canonical(s, n, INT32_MIN, INT32_MAX, out) < 0 ? -EINVAL : 0;
	case TYPE_BIGINT:
		*ret_why = "must be an integer from -9223372036854775808 to 9223372036854775807";
		return integer_canonical(s, n, INT64_MIN, INT64_MAX, out) < 0 ? -EINVAL : 0;
	case TYPE_NUMBER:
		return number_canonical(s, n, out, ret_why);
	case TYPE_NUMERIC:
		return numeric_canonical(s, n, out, ret_why);
	case TYPE_BOOLEAN:
		*ret_why = "must be true or false";
		return boolean_canonical(s, n, out);
	case TYPE_UUID:
		*ret_why = "must be a UUID, such as 123e4567-e89b-12d3-a456-426614174000";
		return uuid_canonical(s, n, out);
	case TYPE_DATE:
		return date_canonical(s, n, out, ret_why);
	case TYPE_TIMESTAMP:
		return timestamp_canonical(s, n, out, ret_why);
	case TYPE_JSON:
		return json_canonical(s, n, out, ret_why);
	case TYPE_TEXT:
		break;
	}
	ALWAYS(!"a type with a normal form of its own");
	return -EINVAL;
}

bool value_has_order(enum param_type t)
{
	return t != TYPE_TEXT && t != TYPE_BOOLEAN && t != TYPE_UUID && t != TYPE_JSON;
}

/* Normal forms of numbers are short, but a slice has no NUL for strtod. */
static void terminate(struct slice s, char text[32])
{
	ALWAYS(s.n < 32);
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
}

/* Their normal form has neither leading zeros nor `-0`. */
static int compare_integers(struct slice a, struct slice b)
{
	bool below = *a.p == '-';
	int r;

	if (below != (*b.p == '-'))
		return below ? -1 : 1;
	r = a.n == b.n ? memcmp(a.p, b.p, a.n) : a.n < b.n ? -1 : 1;
	return below ? -r : r;
}

static int compare_numbers(struct slice a, struct slice b)
{
	char x[32], y[32];
	double i, j;

	terminate(a, x);
	terminate(b, y);
	i = strtod(x, NULL);
	j = strtod(y, NULL);
	return (i > j) - (i < j);
}

/* `…:SS.ffffffZ` against `…:SSZ`: the first 19 bytes decide, then the fraction's presence. */
static int compare_timestamps(struct slice a, struct slice b)
{
	int r = memcmp(a.p, b.p, 19);

	if (r != 0)
		return r;
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	return memcmp(a.p, b.p, a.n);
}

int value_compare(enum param_type t, struct slice a, struct slice b)
{
	switch (t) {
	case TYPE_INTEGER:
	case TYPE_BIGINT:
		return compare_integers(a, b);
	case TYPE_NUMBER:
		return compare_numbers(a, b);
	case TYPE_DATE:
		return memcmp(a.p, b.p, MIN(a.n, b.n));
	case TYPE_TIMESTAMP:
		return compare_timestamps(a, b);
	default:
		ALWAYS(t == TYPE_NUMERIC);
		return numeric_compare(a, b);
	}
}

/* ---- the rules of one parameter ------------------------------------------------------ */

static bool below(const struct param *p, struct slice v, const struct param_bound *b)
{
	return b->set && value_compare(p->type, v, (struct slice){b->text, strlen(b->text)}) < 0;
}

static bool above(const struct param *p, struct slice v, const struct param_bound *b)
{
	return b->set && value_compare(p->type, v, (struct slice){b->text, strlen(b->text)}) > 0;
}

static int check_order(const struct param *p, struct slice v, char reason[VALUES_REASON_MAX])
{
	if (!below(p, v, &p->min) && !above(p, v, &p->max))
		return 0;
	if (p->min.set && p->max.set)
		reason_set(reason, "must be from %s to %s", p->min.text, p->max.text);
	else if (p->min.set)
		reason_set(reason, "must be at least %s", p->min.text);
	else
		reason_set(reason, "must be at most %s", p->max.text);
	return -EINVAL;
}

static int check_length(const struct param *p, size_t length, char reason[VALUES_REASON_MAX])
{
	if (p->min.set && length < p->min.count) {
		reason_set(reason, "must be at least %" PRIu64 " characters long", p->min.count);
		return -EINVAL;
	}
	if (p->max.set && length > p->max.count) {
		reason_set(reason, "must be at most %" PRIu64 " characters long", p->max.count);
		return -EINVAL;
	}
	return 0;
}

static int check_enum(const struct param *p, struct slice v, char reason[VALUES_REASON_MAX])
{
	_cleanup_buf_ struct buf list = {.max = 4 * VALUES_REASON_MAX};

	if (p->enumeration.count == 0)
		return 0;
	for (size_t i = 0; i < p->enumeration.count; i++) {
		const char *item = p->enumeration.item[i];

		if (strlen(item) == v.n && memcmp(item, v.p, v.n) == 0)
			return 0;
	}
	for (size_t i = 0; i < p->enumeration.count && list.len < VALUES_REASON_MAX; i++) {
		if (i > 0)
			buf_adds(&list, ", ");
		/* Longer than any reason: what does not fit is cut anyway. */
		buf_add(&list, p->enumeration.item[i],
		        strnlen(p->enumeration.item[i], VALUES_REASON_MAX));
	}
	reason_set(reason, "must be one of %.*s", (int)list.len, list.data ? list.data : "");
	return -EINVAL;
}

static int normalise_text(const struct param *p, const char *s, size_t n, struct buf *out,
                          char reason[VALUES_REASON_MAX])
{
	size_t start = out->len, length;
	const char *why;
	int r = text_canonical(p, s, n, out, &length, &why);

	if (r < 0) {
		reason_set(reason, "%s", why);
		return r;
	}
	if (!p->array && check_length(p, length, reason) < 0)
		return -EINVAL;
	if (out->failed)
		return -ENOMEM;
	return check_enum(p, (struct slice){out->data ? out->data + start : "", out->len - start},
	                  reason);
}

static int normalise_other(const struct param *p, const char *s, size_t n, struct buf *out,
                           char reason[VALUES_REASON_MAX])
{
	size_t start = out->len;
	const char *why;
	int r = value_canonical(p->type, s, n, out, &why);

	if (r < 0) {
		reason_set(reason, "%s", why);
		return r;
	}
	if (out->failed)
		return -ENOMEM;
	if (p->array || !value_has_order(p->type))
		return 0;
	return check_order(p, (struct slice){out->data + start, out->len - start}, reason);
}

int value_normalise(const struct param *p, const char *s, size_t n, struct buf *out,
                    char reason[VALUES_REASON_MAX])
{
	size_t start = out->len;
	int r = p->type == TYPE_TEXT ? normalise_text(p, s, n, out, reason)
	                             : normalise_other(p, s, n, out, reason);

	if (r < 0)
		out->len = start;
	return r;
}

bool value_is_absent(const struct param *p, const char *s, size_t n)
{
	if (n == 0)
		return true;
	return p->trim && utf8_length(s, n) >= 0 && text_trim((struct slice){s, n}).n == 0;
}

/* ---- arrays -------------------------------------------------------------------------- */

void array_begin(struct buf *out)
{
	buf_addc(out, '{');
}

/* Text and JSON are always quoted, so that NULL, blanks and empty elements are what they are. */
void array_add(enum param_type t, const char *s, size_t n, bool first, struct buf *out)
{
	if (!first)
		buf_addc(out, ',');
	if (t != TYPE_TEXT && t != TYPE_JSON) {
		buf_add(out, s, n);
		return;
	}
	buf_addc(out, '"');
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"' || s[i] == '\\')
			buf_addc(out, '\\');
		buf_addc(out, s[i]);
	}
	buf_addc(out, '"');
}

void array_end(struct buf *out)
{
	buf_addc(out, '}');
}

int array_check_count(const struct param *p, size_t count, char reason[VALUES_REASON_MAX])
{
	if (p->min.set && count < p->min.count) {
		reason_set(reason, "must have at least %" PRIu64 " elements", p->min.count);
		return -EINVAL;
	}
	if (p->max.set && count > p->max.count) {
		reason_set(reason, "must have at most %" PRIu64 " elements", p->max.count);
		return -EINVAL;
	}
	return 0;
}
