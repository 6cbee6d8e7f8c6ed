/* Values within JSON text, one after another; json_check has passed it. */
#include <string.h>

#include "value.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip(struct slice *s, size_t n)
{
	s->p += n;
	s->n -= n;
}

static void skip_blanks(struct slice *s)
{
	while (s->n > 0 && is_blank(*s->p))
		skip(s, 1);
}

/* From its opening quote to behind the closing one. */
static size_t string_length(struct slice s)
{
	size_t i = 1;

	while (s.p[i] != '"')
		i += s.p[i] == '\\' ? 2 : 1;
	return i + 1;
}

/* From its opening bracket to behind the closing one. */
static size_t nest_length(struct slice s)
{
	size_t i = 0, depth = 0;

	do {
		char c = s.p[i];

		if (c == '"') {
			i += string_length((struct slice){s.p + i, s.n - i});
			continue;
		}
		depth += c == '[' || c == '{';
		depth -= c == ']' || c == '}';
		i++;
	} while (depth > 0);
	return i;
}

static size_t value_length(struct slice s)
{
	size_t i = 0;

	if (*s.p == '"')
		return string_length(s);
	if (*s.p == '[' || *s.p == '{')
		return nest_length(s);
	while (i < s.n && !is_blank(s.p[i]) && s.p[i] != ',' && s.p[i] != ']' && s.p[i] != '}')
		i++;
	return i;
}

static struct slice take_value(struct slice *rest)
{
	struct slice v;

	skip_blanks(rest);
	v = (struct slice){rest->p, value_length(*rest)};
	skip(rest, v.n);
	return v;
}

/* A comma or a colon. */
static void take_mark(struct slice *rest)
{
	skip_blanks(rest);
	if (rest->n > 0)
		skip(rest, 1);
}

struct slice json_value(struct slice text)
{
	return take_value(&text);
}

enum json_kind json_kind_of(struct slice value)
{
	switch (*value.p) {
	case 'n':
		return JSON_NULL;
	case 't':
	case 'f':
		return JSON_BOOLEAN;
	case '"':
		return JSON_STRING;
	case '[':
		return JSON_ARRAY;
	case '{':
		return JSON_OBJECT;
	default:
		return JSON_NUMBER;
	}
}

const char *json_kind_name(enum json_kind k)
{
	static const char *const names[] = {
	    [JSON_NULL] = "null",       [JSON_BOOLEAN] = "true or false",
	    [JSON_NUMBER] = "a number", [JSON_STRING] = "a string",
	    [JSON_ARRAY] = "an array",  [JSON_OBJECT] = "an object",
	};

	return names[k];
}

struct slice json_inside(struct slice value)
{
	return (struct slice){value.p + 1, value.n - 2};
}

bool json_next(struct slice *rest, struct slice *ret)
{
	skip_blanks(rest);
	if (rest->n == 0)
		return false;
	*ret = take_value(rest);
	take_mark(rest);
	return true;
}

bool json_next_member(struct slice *rest, struct slice *ret_name, struct slice *ret)
{
	skip_blanks(rest);
	if (rest->n == 0)
		return false;
	*ret_name = take_value(rest);
	take_mark(rest);
	*ret = take_value(rest);
	take_mark(rest);
	return true;
}
