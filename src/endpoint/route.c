/* `@route METHOD /path/:param`. */
#include <errno.h>

#include "parse.h"

static void method_read(struct parse *ps, struct slice s)
{
	int m = method_parse(s.p, s.n);

	if (m < 0)
		parse_error(ps, "`%.*s` is not a method: GET, POST, PUT, PATCH or DELETE", SHOW(s));
	else
		ps->e->method = (enum method)m;
}

/* Literal text that a client cannot rewrite on its way: no dot segments, no delimiters. */
static void literal_read(struct parse *ps, struct slice raw, struct segment *ret)
{
	_cleanup_buf_ struct buf text = {0};

	if (slice_is(raw, ".") || slice_is(raw, "..")) {
		parse_error(ps, "a route cannot contain `.` or `..`: clients resolve them");
		return;
	}
	for (size_t i = 0; i < raw.n; i++) {
		if (raw.p[i] <= 0x20 || raw.p[i] >= 0x7f || strchr("?#\"<>\\^`{|}:", raw.p[i])) {
			parse_error(ps,
			            "`%.*s` is not a path segment: percent-encode what is not a "
			            "letter, a digit or one of -._~!$&'()*+,;=@",
			            SHOW(raw));
			return;
		}
	}
	if (percent_decode(raw, false, &text) < 0 || text.len == 0) {
		parse_error(ps, "`%.*s` has a broken percent-escape", SHOW(raw));
		return;
	}
	ret->text = xstrndup(text.data, text.len);
}

static void segment_read(struct parse *ps, struct slice raw)
{
	struct endpoint *e = ps->e;
	struct segment seg = {0};
	struct slice name = {raw.p + 1, raw.n - 1};

	if (raw.p[0] != ':') {
		literal_read(ps, raw, &seg);
	} else if (!is_param_name(name)) {
		parse_error(ps, "`%.*s` is not the name of a parameter", SHOW(raw));
	} else {
		seg = (struct segment){.text = xstrndup(name.p, name.n), .param = true};
		for (size_t i = 0; i < e->segments; i++)
			if (e->segment[i].param && strcmp(e->segment[i].text, seg.text) == 0)
				parse_error(ps, "`:%s` stands twice in the route", seg.text);
	}
	if (!seg.text)
		return;
	e->segment = xrealloc(e->segment, e->segments + 1, sizeof(*e->segment));
	e->segment[e->segments++] = seg;
}

static void path_segments_read(struct parse *ps, struct slice path)
{
	const char *p = path.p + 1, *end = path.p + path.n;
	size_t n = 0;

	if (path.n == 1)
		return; /* `/`, which the catalogue refuses */
	for (;;) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		struct slice raw = {p, (size_t)((slash ? slash : end) - p)};

		if (++n > ENDPOINT_PATH_SEGMENTS_MAX) {
			parse_error(ps, "a route has at most %d segments",
			            ENDPOINT_PATH_SEGMENTS_MAX);
			return;
		}
		if (raw.n == 0) {
			parse_error(ps,
			            "the route has an empty segment (`//` or a `/` at its end), "
			            "which no request can match");
			return;
		}
		segment_read(ps, raw);
		if (!slash)
			return;
		p = slash + 1;
	}
}

void route_read(struct parse *ps, struct cursor *c)
{
	struct slice method = cursor_word(c, ""), path = cursor_word(c, "");

	ps->e->route_line = ps->line;
	ps->e->route = xstrndup(path.p, path.n);
	if (path.n == 0) {
		parse_error(ps, "@route needs a method and a path: @route GET /api/things/:id");
		return;
	}
	method_read(ps, method);
	if (path.p[0] != '/')
		parse_error(ps, "the route's path begins with `/`, unlike `%.*s`", SHOW(path));
	else
		path_segments_read(ps, path);
}

static bool route_has(const struct endpoint *e, const char *name)
{
	for (size_t i = 0; i < e->segments; i++)
		if (e->segment[i].param && strcmp(e->segment[i].text, name) == 0)
			return true;
	return false;
}

/* Every parameter of the path is declared, and the reverse. */
void route_finish(struct parse *ps)
{
	struct endpoint *e = ps->e;

	ps->line = e->route_line;
	for (size_t i = 0; i < e->segments; i++) {
		const struct param *p;

		if (!e->segment[i].param)
			continue;
		p = endpoint_param(e, e->segment[i].text);
		if (!p || p->in != IN_PATH)
			parse_error(ps,
			            "`:%s` of the route is not declared: add `-- @path %s TYPE`",
			            e->segment[i].text, e->segment[i].text);
	}
	for (size_t i = 0; i < e->params; i++) {
		ps->line = e->param[i].line;
		if (e->param[i].in == IN_PATH && !route_has(e, e->param[i].name))
			parse_error(ps, "@path %s: the route has no `:%s`", e->param[i].name,
			            e->param[i].name);
	}
}
