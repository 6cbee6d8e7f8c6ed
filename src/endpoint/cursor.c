/* Words, options and lists: the parts that all directives are made of. */
#include <errno.h>

#include "parse.h"
#include "provost/units.h"

void cursor_skip_blanks(struct cursor *c)
{
	while (c->p < c->end && is_blank(*c->p))
		c->p++;
}

static bool is_stop(char c, const char *stop)
{
	return c != '\0' && strchr(stop, c);
}

struct slice cursor_word(struct cursor *c, const char *stop)
{
	struct slice s;

	cursor_skip_blanks(c);
	s.p = c->p;
	while (c->p < c->end && !is_blank(*c->p) && !is_stop(*c->p, stop))
		c->p++;
	s.n = (size_t)(c->p - s.p);
	return s;
}

bool cursor_take(struct cursor *c, char ch)
{
	cursor_skip_blanks(c);
	if (c->p == c->end || *c->p != ch)
		return false;
	c->p++;
	return true;
}

bool cursor_at_end(struct cursor *c)
{
	cursor_skip_blanks(c);
	return c->p == c->end;
}

/* From the opening quote; a doubled quote is one. */
static int quoted_take(struct parse *ps, struct cursor *c, const char *stop, char **ret)
{
	_cleanup_buf_ struct buf value = {0};

	for (c->p++; c->p < c->end; c->p++) {
		if (*c->p == '\'') {
			if (c->p + 1 == c->end || c->p[1] != '\'')
				break;
			c->p++;
		}
		buf_addc(&value, *c->p);
	}
	if (c->p == c->end) {
		parse_error(ps, "the value's quote is not closed (a quote within is doubled)");
		return -EINVAL;
	}
	c->p++;
	if (c->p < c->end && !is_blank(*c->p) && !is_stop(*c->p, stop)) {
		parse_error(ps, "a quoted value goes on behind its closing quote");
		return -EINVAL;
	}
	*ret = value.data ? xstrndup(value.data, value.len) : xstrdup("");
	return 0;
}

static int value_take(struct parse *ps, struct cursor *c, const char *stop, struct option *o)
{
	struct slice s;

	if (c->p < c->end && *c->p == '\'')
		return quoted_take(ps, c, stop, &o->value);
	if (c->p == c->end || is_blank(*c->p) || is_stop(*c->p, stop)) {
		parse_error(ps, "`%.*s=` lacks its value (an empty one is '')", SHOW(o->name));
		return -EINVAL;
	}
	s = cursor_word(c, stop);
	if (memchr(s.p, '\'', s.n)) {
		parse_error(ps, "the value of `%.*s` has a quote in it: quote all of it",
		            SHOW(o->name));
		return -EINVAL;
	}
	o->value = xstrndup(s.p, s.n);
	return 0;
}

int option_take(struct parse *ps, struct cursor *c, const char *stop, struct option *ret)
{
	const char *start;

	*ret = (struct option){0};
	if (cursor_at_end(c) || is_stop(*c->p, stop))
		return 0;
	for (start = c->p; c->p < c->end && !is_blank(*c->p) && *c->p != '='; c->p++)
		if (is_stop(*c->p, stop))
			break;
	ret->name = (struct slice){start, (size_t)(c->p - start)};
	if (c->p == c->end || *c->p != '=')
		return 1;
	c->p++;
	ret->has_value = true;
	return value_take(ps, c, stop, ret) < 0 ? -EINVAL : 1;
}

void option_done(struct option *o)
{
	free(o->value);
	*o = (struct option){0};
}

static bool is_name_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_param_name(struct slice s)
{
	if (s.n == 0 || s.n > ENDPOINT_PARAM_NAME_MAX || !is_name_start(s.p[0]))
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (!is_name_start(s.p[i]) && !(s.p[i] >= '0' && s.p[i] <= '9'))
			return false;
	return true;
}

void list_read(struct parse *ps, const char *what, const char *text, bool (*valid)(struct slice),
               struct strlist *to)
{
	struct cursor c = {text, text + strlen(text)};

	do {
		struct slice s = cursor_word(&c, ",");
		_cleanup_free_ char *item = xstrndup(s.p, s.n);

		if (!valid(s))
			parse_error(ps, "`%.*s` is not the name of a %s", SHOW(s), what);
		else if (strlist_has_nocase(to, item))
			parse_error(ps, "the %s `%s` stands twice", what, item);
		else
			strlist_add(to, s.p, s.n);
	} while (cursor_take(&c, ','));
	if (!cursor_at_end(&c))
		parse_error(ps, "a comma is missing before `%.*s`",
		            SHOW(((struct slice){c.p, (size_t)(c.end - c.p)})));
}

void duration_read(struct parse *ps, const char *what, const char *text, int64_t min_ms,
                   int64_t max_ms, int64_t *ret_ms)
{
	char low[32], high[32];
	int64_t ms = 0;
	int r = units_duration(text, &ms);

	units_format_duration(min_ms, low, sizeof(low));
	units_format_duration(max_ms, high, sizeof(high));
	if (r == -EINVAL)
		parse_error(ps, "%s: `%.60s` is not a duration: write 500ms, 2s, 10m, 1h or 7d",
		            what, text);
	else if (r < 0 || ms < min_ms || ms > max_ms)
		parse_error(ps, "%s: `%.60s` is not from %s to %s", what, text, low, high);
	else
		*ret_ms = ms;
}
