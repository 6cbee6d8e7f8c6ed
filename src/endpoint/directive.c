/* The table of directives, and the short ones. */
#include <errno.h>

#include "parse.h"

enum { TIMEOUT_MAX_MS = 60 * 60 * 1000 };

static bool is_role_name(struct slice s)
{
	if (s.n == 0 || s.n > ENDPOINT_PARAM_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		struct slice one = {s.p + i, 1};
		bool later = i > 0 && (s.p[i] == '-' || (s.p[i] >= '0' && s.p[i] <= '9'));

		if (!is_param_name(one) && !later)
			return false;
	}
	return true;
}

static struct slice rest(struct cursor *c)
{
	struct slice s;

	cursor_skip_blanks(c);
	s = (struct slice){c->p, (size_t)(c->end - c->p)};
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	c->p = c->end;
	return s;
}

static void role_read(struct parse *ps, struct cursor *c)
{
	struct slice s = rest(c);
	_cleanup_free_ char *text = xstrndup(s.p, s.n);
	struct strlist *roles = &ps->e->roles;

	if (s.n == 0) {
		parse_error(ps,
		            "@role needs the roles that may call: @role admin,staff, or public");
		return;
	}
	list_read(ps, "role", text, is_role_name, roles);
	if (!strlist_has_nocase(roles, "public"))
		return;
	if (roles->count > 1)
		parse_error(ps, "@role public stands alone: everyone includes every role");
	strlist_done(roles);
	ps->e->is_public = true;
}

static void path_read(struct parse *ps, struct cursor *c)
{
	param_read(ps, c, IN_PATH);
}

static void query_read(struct parse *ps, struct cursor *c)
{
	param_read(ps, c, IN_QUERY);
}

static void body_read(struct parse *ps, struct cursor *c)
{
	param_read(ps, c, IN_BODY);
}

static void returns_read(struct parse *ps, struct cursor *c)
{
	struct slice s = rest(c);
	int r = returns_parse(s);

	if (r < 0)
		parse_error(ps, "@returns is json, rows, row or none, not `%.*s`", SHOW(s));
	else
		ps->e->returns = (enum returns)r;
}

static void status_read(struct parse *ps, struct cursor *c)
{
	struct slice s = rest(c);
	unsigned v = 0;

	for (size_t i = 0; i < s.n && s.n == 3; i++)
		v = s.p[i] >= '0' && s.p[i] <= '9' ? v * 10 + (unsigned)(s.p[i] - '0') : 1000;
	if (v < 200 || v > 299)
		parse_error(ps, "@status is a success status from 200 to 299, not `%.*s`", SHOW(s));
	else if (v == 205 || v == 206)
		parse_error(ps, "@status %u means what no endpoint can: take another", v);
	else
		ps->e->status = v;
}

static void timeout_read(struct parse *ps, struct cursor *c)
{
	struct slice s = rest(c);
	_cleanup_free_ char *text = xstrndup(s.p, s.n);

	duration_read(ps, "@timeout", text, 1, TIMEOUT_MAX_MS, &ps->e->timeout_ms);
}

enum {
	D_ROUTE,
	D_ROLE,
	D_PATH,
	D_QUERY,
	D_BODY,
	D_RETURNS,
	D_STATUS,
	D_CACHE,
	D_DEPENDS,
	D_TIMEOUT
};

static const struct directive {
	const char *name;
	bool repeats;
	void (*read)(struct parse *ps, struct cursor *c);
} directives[] = {
    [D_ROUTE] = {"route", false, route_read},      [D_ROLE] = {"role", false, role_read},
    [D_PATH] = {"path", true, path_read},          [D_QUERY] = {"query", true, query_read},
    [D_BODY] = {"body", true, body_read},          [D_RETURNS] = {"returns", false, returns_read},
    [D_STATUS] = {"status", false, status_read},   [D_CACHE] = {"cache", false, cache_read},
    [D_DEPENDS] = {"depends", true, depends_read}, [D_TIMEOUT] = {"timeout", false, timeout_read},
};

_Static_assert(ELEMENTSOF(directives) <= ELEMENTSOF(((struct parse *)0)->lines),
               "a line per directive");

static const struct directive *find(struct slice name)
{
	for (size_t i = 0; i < ELEMENTSOF(directives); i++)
		if (slice_is(name, directives[i].name))
			return &directives[i];
	return NULL;
}

bool directive_is_known(struct slice name)
{
	return find(name) != NULL;
}

void directive_read(struct parse *ps, struct cursor c)
{
	/* `@ role` is a typing error, not a directive. */
	bool blank = c.p < c.end && is_blank(*c.p);
	struct slice name = cursor_word(&c, "");
	const struct directive *d = blank ? NULL : find(name);
	size_t i;

	if (!d) {
		parse_error(ps,
		            "unknown directive `@%s%.*s`: there are @route, @role, @path, @query, "
		            "@body, @returns, @status, @cache, @depends and @timeout",
		            blank ? " " : "", SHOW(name));
		return;
	}
	i = (size_t)(d - directives);
	if (ps->seen == 0 && i != D_ROUTE)
		parse_error(ps, "the first directive must be @route, not @%s", d->name);
	if (ps->seen & 1u << i && !d->repeats) {
		parse_error(ps, "@%s stands twice: first in line %u", d->name, ps->lines[i]);
		return;
	}
	if (!(ps->seen & 1u << i))
		ps->lines[i] = ps->line;
	ps->seen |= 1u << i;
	d->read(ps, &c);
	if (!cursor_at_end(&c))
		parse_error(ps, "@%s: `%.*s` is one word too many", d->name,
		            SHOW(((struct slice){c.p, (size_t)(c.end - c.p)})));
}

/* @returns none and 204 are two words for one thing. */
static void finish_status(struct parse *ps)
{
	struct endpoint *e = ps->e;
	bool given = ps->seen & 1u << D_STATUS && e->status;

	ps->line = ps->lines[D_STATUS];
	if (e->returns == RETURNS_NONE) {
		if (given && e->status != 204)
			parse_error(ps, "@returns none answers 204, not %u", e->status);
		e->status = 204;
		return;
	}
	if (given && e->status == 204)
		parse_error(ps, "@status 204 has no body: write @returns none instead");
	if (!given)
		e->status = e->method == METHOD_POST ? 201 : 200;
}

void directives_finish(struct parse *ps)
{
	struct endpoint *e = ps->e;

	if (!(ps->seen & 1u << D_ROUTE)) {
		ps->line = 1;
		/* With another directive in front, its own line says so already. */
		if (ps->seen == 0)
			parse_error(ps, "the file needs `-- @route METHOD /path` at its head");
		return;
	}
	if (e->method == METHOD_GET && ps->seen & 1u << D_BODY) {
		ps->line = ps->lines[D_BODY];
		parse_error(ps, "@body does not go with GET: use @query, or another method");
	}
	if (e->method != METHOD_GET && ps->seen & 1u << D_CACHE) {
		ps->line = ps->lines[D_CACHE];
		parse_error(ps, "@cache goes with GET only, not %s", method_name(e->method));
	}
	if (e->method != METHOD_GET && ps->seen & 1u << D_DEPENDS) {
		ps->line = ps->lines[D_DEPENDS];
		parse_error(ps, "@depends goes with GET only, not %s", method_name(e->method));
	}
	finish_status(ps);
	if (!e->is_public && e->roles.count == 0)
		strlist_add(&e->roles, "admin", 5);
	route_finish(ps);
	depends_finish(ps);
}
