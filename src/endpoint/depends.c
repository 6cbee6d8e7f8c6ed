/* `@cache` and `@depends`: what an answer's lifetime hangs on. */
#include <errno.h>

#include "parse.h"

/* Far beyond any use, and far from where milliseconds overflow. */
#define LIFETIME_MAX_MS ((int64_t)365 * 24 * 60 * 60 * 1000)

/* ---- @cache -------------------------------------------------------------------------- */

static bool is_tag_name(struct slice s)
{
	if (s.n == 0 || s.n > ENDPOINT_PARAM_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		struct slice one = {s.p + i, 1};
		bool other = (s.p[i] >= '0' && s.p[i] <= '9') || strchr("-./", s.p[i]);

		if (!is_param_name(one) && !other)
			return false;
	}
	return true;
}

static bool is_claim(struct slice s)
{
	return slice_is(s, "sub") || slice_is(s, "role");
}

static void vary_read(struct parse *ps, const char *text)
{
	struct strlist claims = {0};

	list_read(ps, "claim that can vary (sub, role)", text, is_claim, &claims);
	ps->e->cache.vary_sub = strlist_has(&claims, "sub");
	ps->e->cache.vary_role = strlist_has(&claims, "role");
	strlist_done(&claims);
}

enum { C_TTL, C_SWR, C_MAX_STALE, C_STALE_IF_ERROR, C_TAGS, C_VARY, C_OFF, C_COUNT };

static const char *const cache_options[C_COUNT] = {
    [C_TTL] = "ttl",
    [C_SWR] = "swr",
    [C_MAX_STALE] = "max_stale",
    [C_STALE_IF_ERROR] = "stale_if_error",
    [C_TAGS] = "tags",
    [C_VARY] = "vary",
    [C_OFF] = "off",
};

static void cache_value_read(struct parse *ps, int which, const char *text)
{
	struct cache_policy *p = &ps->e->cache;
	int64_t *durations[] = {&p->ttl_ms, &p->swr_ms, &p->max_stale_ms, &p->stale_if_error_ms};
	char what[32];

	if (which == C_TAGS) {
		list_read(ps, "tag", text, is_tag_name, &p->tags);
	} else if (which == C_VARY) {
		vary_read(ps, text);
	} else if (which == C_OFF) {
		p->off = true;
	} else {
		snprintf(what, sizeof(what), "@cache %s", cache_options[which]);
		duration_read(ps, what, text, 0, LIFETIME_MAX_MS, durations[which]);
	}
}

static int cache_option_find(struct slice name)
{
	for (int i = 0; i < C_COUNT; i++)
		if (slice_is(name, cache_options[i]))
			return i;
	return -EINVAL;
}

static void cache_option_read(struct parse *ps, const struct option *o, unsigned *seen)
{
	int which = cache_option_find(o->name);

	if (which < 0) {
		parse_error(ps,
		            "@cache: unknown option `%.*s`: there are ttl=, swr=, max_stale=, "
		            "stale_if_error=, tags=, vary= and off",
		            SHOW(o->name));
	} else if (*seen & 1u << which) {
		parse_error(ps, "@cache: `%s` stands twice", cache_options[which]);
	} else if (o->has_value == (which == C_OFF)) {
		parse_error(ps, "@cache: `%s` %s", cache_options[which],
		            o->has_value ? "takes no value" : "needs a value");
	} else {
		cache_value_read(ps, which, o->value);
	}
	*seen |= 1u << (which < 0 ? C_COUNT : which);
}

void cache_read(struct parse *ps, struct cursor *c)
{
	unsigned seen = 0;
	int r;

	ps->e->cache.set = true;
	do {
		_cleanup_option_ struct option o = {0};

		r = option_take(ps, c, "", &o);
		if (r > 0)
			cache_option_read(ps, &o, &seen);
	} while (r > 0);
	if (r < 0) {
		c->p = c->end;
		return;
	}
	if (seen == 0)
		parse_error(ps, "@cache without options says nothing: give some, or leave it out");
	if (seen & 1u << C_OFF && seen != 1u << C_OFF)
		parse_error(ps, "@cache off stands alone");
}

/* ---- @depends ------------------------------------------------------------------------ */

/* One identifier, plain or quoted, as PostgreSQL takes it; empty when there is none. */
static struct slice identifier_take(struct cursor *c)
{
	struct slice s = {c->p, 0};

	if (c->p < c->end && *c->p == '"') {
		for (c->p++; c->p < c->end; c->p++) {
			if (*c->p != '"')
				continue;
			if (c->p + 1 == c->end || c->p[1] != '"')
				break;
			c->p++;
		}
		if (c->p == c->end || c->p - s.p < 2)
			return s;
		c->p++;
	} else {
		while (c->p < c->end &&
		       (is_param_name((struct slice){c->p, 1}) || (*c->p & 0x80) ||
		        (c->p > s.p && (*c->p == '$' || (*c->p >= '0' && *c->p <= '9')))))
			c->p++;
	}
	s.n = (size_t)(c->p - s.p);
	return s;
}

/* [SCHEMA.]TABLE */
static struct slice table_take(struct cursor *c)
{
	struct slice first = identifier_take(c), second;

	if (first.n == 0 || c->p == c->end || *c->p != '.')
		return first;
	c->p++;
	second = identifier_take(c);
	if (second.n == 0)
		return second;
	return (struct slice){first.p, (size_t)(c->p - first.p)};
}

/* Behind `(`: COLUMN=:param) */
static int narrowing_take(struct parse *ps, struct cursor *c, struct depend *d)
{
	struct slice column, param = {0};

	cursor_skip_blanks(c);
	column = identifier_take(c);
	if (column.n > 0 && cursor_take(c, '=') && cursor_take(c, ':'))
		param = cursor_word(c, "(),=");
	if (!is_param_name(param) || !cursor_take(c, ')')) {
		parse_error(ps, "@depends %s: a table is narrowed as in %s(column=:param)",
		            d->table, d->table);
		return -EINVAL;
	}
	d->column = xstrndup(column.p, column.n);
	d->param = xstrndup(param.p, param.n);
	return 0;
}

static void depend_add(struct parse *ps, struct depend *d)
{
	struct endpoint *e = ps->e;

	if (e->depends == ENDPOINT_DEPENDS_MAX) {
		parse_error(ps, "an endpoint has at most %d dependencies", ENDPOINT_DEPENDS_MAX);
		return;
	}
	e->depend = xrealloc(e->depend, e->depends + 1, sizeof(*e->depend));
	e->depend[e->depends++] = *d;
	*d = (struct depend){0};
}

static void depend_done(struct depend *d)
{
	free(d->table);
	free(d->column);
	free(d->param);
}

static int depend_read(struct parse *ps, struct cursor *c)
{
	__attribute__((cleanup(depend_done))) struct depend d = {.line = ps->line};
	struct slice table;

	d.exclude = cursor_take(c, '!');
	cursor_skip_blanks(c);
	table = table_take(c);
	if (table.n == 0) {
		parse_error(ps, "@depends lists tables: course, school.\"user\", "
		                "course(id=:id), !visits");
		return -EINVAL;
	}
	d.table = xstrndup(table.p, table.n);
	if (cursor_take(c, '(')) {
		if (d.exclude) {
			parse_error(ps, "@depends !%s: a table is left out as a whole", d.table);
			return -EINVAL;
		}
		if (narrowing_take(ps, c, &d) < 0)
			return -EINVAL;
	}
	depend_add(ps, &d);
	return 0;
}

void depends_read(struct parse *ps, struct cursor *c)
{
	do {
		if (depend_read(ps, c) < 0) {
			c->p = c->end;
			return;
		}
	} while (cursor_take(c, ','));
}

/* A narrowing compares a column with a parameter by its text, so the type must have one spelling.
 */
static bool type_narrows(enum param_type t)
{
	return t == TYPE_TEXT || t == TYPE_INTEGER || t == TYPE_BIGINT || t == TYPE_UUID;
}

static void narrowing_check(struct parse *ps, const struct depend *d)
{
	const struct param *p = d->param ? endpoint_param(ps->e, d->param) : NULL;

	if (!d->param)
		return;
	if (!p || p->in == IN_BODY)
		parse_error(ps, "@depends %s: `:%s` is not a @path or @query parameter", d->table,
		            d->param);
	else if (!type_narrows(p->type))
		parse_error(ps,
		            "@depends %s: `:%s` is %s; rows are told apart by text, integer, "
		            "bigint or uuid only",
		            d->table, d->param, param_type_name(p->type));
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void repetition_check(struct parse *ps, const struct depend *d, const struct depend *before)
{
	if (!same(d->table, before->table))
		return;
	if (d->exclude != before->exclude)
		parse_error(ps, "@depends names %s and leaves it out, too (line %u)", d->table,
		            before->line);
	else if (same(d->column, before->column) && same(d->param, before->param))
		parse_error(ps, "@depends says the same of %s twice: first in line %u", d->table,
		            before->line);
}

void depends_finish(struct parse *ps)
{
	const struct endpoint *e = ps->e;

	for (size_t i = 0; i < e->depends; i++) {
		ps->line = e->depend[i].line;
		narrowing_check(ps, &e->depend[i]);
		for (size_t j = 0; j < i; j++)
			repetition_check(ps, &e->depend[i], &e->depend[j]);
	}
}
