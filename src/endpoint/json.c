/*
 * json: RFC 8259, strictly, to its normal form: no blanks between tokens, every character as itself
 * unless JSON must escape it, numbers as they were written.
 *
 * Not done with json-c, whose strict mode accepts NaN, `1.` and raw control characters, turns a
 * lone surrogate into U+FFFD and every integer beyond 64 bits into 18446744073709551615. Members
 * keep their order, repeated ones included: jsonb takes the last.
 */
#include <errno.h>
#include <string.h>

#include "value.h"

enum { EXPONENT_MAX = 308, NUMBER_MAX = VALUES_NUMERIC_MAX, LEVELS_MAX = 64 };

enum expect { EXPECT_VALUE, EXPECT_FIRST_VALUE, EXPECT_KEY, EXPECT_FIRST_KEY, EXPECT_NEXT };

struct json {
	const char *p, *end;
	struct buf *out; /* NULL: the form alone is looked at, not what strings and numbers hold */
	const char *why;
	enum expect expect;
	unsigned depth, depth_max;
	uint64_t objects; /* bit per level that is an object */
};

_Static_assert((int)VALUES_JSON_DEPTH <= (int)LEVELS_MAX, "a bit per level");

static const char not_json[] = "must be JSON (RFC 8259)";

static bool fail(struct json *j, const char *why)
{
	j->why = why;
	return false;
}

static void put(struct json *j, const char *p, size_t n)
{
	if (j->out)
		buf_add(j->out, p, n);
}

static bool is_digit(const struct json *j, const char *p)
{
	return p < j->end && *p >= '0' && *p <= '9';
}

static bool take_hex4(struct json *j, uint32_t *ret)
{
	uint32_t v = 0;

	if (j->end - j->p < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		char c = *j->p++;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			v = v << 4 | (uint32_t)((c | 32) - 'a' + 10);
		else
			return false;
	}
	*ret = v;
	return true;
}

/* Behind `\u`. A surrogate must be one of a pair. */
static bool take_code_point(struct json *j, uint32_t *ret)
{
	uint32_t c, low;

	if (!take_hex4(j, &c))
		return fail(j, not_json);
	if (c == 0 && j->out)
		return fail(j, "must not contain \\u0000");
	if (j->out && c >= 0xd800 && c <= 0xdfff) {
		if (c >= 0xdc00 || j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
			return fail(j, "must not contain half a surrogate pair");
		j->p += 2;
		if (!take_hex4(j, &low) || low < 0xdc00 || low > 0xdfff)
			return fail(j, "must not contain half a surrogate pair");
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	*ret = c;
	return true;
}

static void add_escaped(struct buf *out, uint32_t c)
{
	static const char letters[] = "b\bf\fn\nr\rt\t\"\"\\\\";

	for (const char *l = letters; *l; l += 2) {
		if ((uint32_t)l[1] == c) {
			buf_addc(out, '\\');
			buf_addc(out, l[0]);
			return;
		}
	}
	if (c < 0x20)
		buf_addf(out, "\\u%04x", (unsigned)c);
	else
		utf8_add(out, c);
}

/* Behind a backslash. */
static bool take_escape(struct json *j, uint32_t *ret)
{
	static const char letters[] = "b\bf\fn\nr\rt\t\"\"\\\\//";

	if (j->p == j->end)
		return fail(j, not_json);
	if (*j->p == 'u') {
		j->p++;
		return take_code_point(j, ret);
	}
	for (const char *l = letters; *l; l += 2) {
		if (l[0] == *j->p) {
			j->p++;
			*ret = (uint32_t)l[1];
			return true;
		}
	}
	return fail(j, not_json);
}

static bool take_string(struct json *j)
{
	const char *from = ++j->p;
	uint32_t c;

	put(j, "\"", 1);
	for (;;) {
		if (j->p == j->end || (unsigned char)*j->p < 0x20)
			return fail(j, not_json);
		if (*j->p != '"' && *j->p != '\\') {
			j->p++;
			continue;
		}
		put(j, from, (size_t)(j->p - from));
		if (*j->p++ == '"')
			break;
		if (!take_escape(j, &c))
			return false;
		if (j->out)
			add_escaped(j->out, c);
		from = j->p;
	}
	put(j, "\"", 1);
	return true;
}

/* jsonb would write 1e100000 out in full, so exponents are bounded where doubles end. */
static bool exponent_is_small(const char *digits, const char *end)
{
	unsigned v = 0;

	for (; digits < end; digits++)
		v = MIN(v * 10 + (unsigned)(*digits - '0'), 10000u);
	return v <= EXPONENT_MAX;
}

static bool take_number(struct json *j)
{
	const char *start = j->p, *digits;

	if (*j->p == '-')
		j->p++;
	if (!is_digit(j, j->p))
		return fail(j, not_json);
	if (*j->p == '0')
		j->p++;
	else
		while (is_digit(j, j->p))
			j->p++;
	if (j->p < j->end && *j->p == '.') {
		if (!is_digit(j, ++j->p))
			return fail(j, not_json);
		while (is_digit(j, j->p))
			j->p++;
	}
	if (j->p < j->end && (*j->p == 'e' || *j->p == 'E')) {
		j->p++;
		if (j->p < j->end && (*j->p == '+' || *j->p == '-'))
			j->p++;
		if (!is_digit(j, j->p))
			return fail(j, not_json);
		for (digits = j->p; is_digit(j, j->p); j->p++)
			;
		if (j->out && !exponent_is_small(digits, j->p))
			return fail(j, "must have no number with an exponent beyond 308");
	}
	if (j->out && j->p - start > NUMBER_MAX)
		return fail(j, "must have no number of more than 1000 characters");
	put(j, start, (size_t)(j->p - start));
	return true;
}

static bool take_word(struct json *j, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
		return fail(j, not_json);
	j->p += n;
	put(j, word, n);
	return true;
}

static bool push(struct json *j, char c)
{
	if (j->depth == j->depth_max)
		return fail(j, j->depth_max == VALUES_JSON_DEPTH ? "must be nested at most 32 deep"
		                                                 : "must be nested less deep");
	j->objects = j->objects << 1 | (c == '{');
	j->depth++;
	j->p++;
	put(j, &c, 1);
	j->expect = c == '{' ? EXPECT_FIRST_KEY : EXPECT_FIRST_VALUE;
	return true;
}

static bool pop(struct json *j)
{
	put(j, j->p++, 1);
	j->objects >>= 1;
	j->depth--;
	j->expect = EXPECT_NEXT;
	return true;
}

static bool is_object(const struct json *j)
{
	return j->objects & 1;
}

static void skip_blanks(struct json *j)
{
	while (j->p < j->end && strchr(" \t\n\r", *j->p) && *j->p)
		j->p++;
}

static bool take_value(struct json *j)
{
	char c = *j->p;

	if (c == '{' || c == '[')
		return push(j, c);
	j->expect = EXPECT_NEXT;
	switch (c) {
	case '"':
		return take_string(j);
	case 't':
		return take_word(j, "true");
	case 'f':
		return take_word(j, "false");
	case 'n':
		return take_word(j, "null");
	default:
		return take_number(j);
	}
}

static bool take_key(struct json *j)
{
	if (*j->p != '"')
		return fail(j, not_json);
	if (!take_string(j))
		return false;
	skip_blanks(j);
	if (j->p == j->end || *j->p != ':')
		return fail(j, not_json);
	put(j, j->p++, 1);
	j->expect = EXPECT_VALUE;
	return true;
}

/* Behind a value: a comma or the end of what it is in. */
static bool take_next(struct json *j)
{
	if (*j->p == (is_object(j) ? '}' : ']'))
		return pop(j);
	if (*j->p != ',')
		return fail(j, not_json);
	put(j, j->p++, 1);
	j->expect = is_object(j) ? EXPECT_KEY : EXPECT_VALUE;
	return true;
}

static bool take_token(struct json *j)
{
	switch (j->expect) {
	case EXPECT_FIRST_KEY:
		return *j->p == '}' ? pop(j) : take_key(j);
	case EXPECT_KEY:
		return take_key(j);
	case EXPECT_FIRST_VALUE:
		return *j->p == ']' ? pop(j) : take_value(j);
	case EXPECT_VALUE:
		return take_value(j);
	default:
		return take_next(j);
	}
}

static bool take_text(struct json *j)
{
	for (;;) {
		skip_blanks(j);
		if (j->expect == EXPECT_NEXT && j->depth == 0)
			return j->p == j->end || fail(j, not_json);
		if (j->p == j->end)
			return fail(j, not_json);
		if (!take_token(j))
			return false;
	}
}

static bool is_utf8(struct json *j)
{
	return utf8_length(j->p, (size_t)(j->end - j->p)) >= 0 || fail(j, "must be valid UTF-8");
}

int json_canonical(const char *s, size_t n, struct buf *out, const char **ret_why)
{
	struct json j = {.p = s, .end = s + n, .out = out, .depth_max = VALUES_JSON_DEPTH};
	size_t start = out->len;

	if (is_utf8(&j) && take_text(&j))
		return 0;
	out->len = start;
	*ret_why = j.why;
	return -EINVAL;
}

int json_check(struct slice s, const char **ret_why)
{
	struct json j = {.p = s.p, .end = s.p + s.n, .depth_max = LEVELS_MAX};

	if (is_utf8(&j) && take_text(&j))
		return 0;
	*ret_why = j.why;
	return -EINVAL;
}

int json_decode(struct slice raw, struct buf *out, const char **ret_why)
{
	struct json j = {.p = raw.p + 1, .end = raw.p + raw.n - 1, .out = out};
	size_t start = out->len;
	uint32_t c;

	while (j.p < j.end) {
		const char *escape = memchr(j.p, '\\', (size_t)(j.end - j.p));
		const char *end = escape ? escape : j.end;

		buf_add(out, j.p, (size_t)(end - j.p));
		j.p = end;
		if (!escape)
			break;
		j.p++;
		if (!take_escape(&j, &c)) {
			out->len = start;
			*ret_why = j.why;
			return -EINVAL;
		}
		utf8_add(out, c);
	}
	return 0;
}
