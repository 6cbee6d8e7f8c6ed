/* The statement of a file: its `:name` become `$n`, equal names share a number. */
#include <errno.h>

#include "parse.h"
#include "provost/scan.h"
#include "value.h"

/* Parameters that no directive declares. */
static const struct {
	const char *name;
	enum bind_source source;
	pg_oid oid;
} given[] = {
    {"body", BIND_BODY, 3802},
    {"auth_sub", BIND_AUTH_SUB, 25},
    {"auth_role", BIND_AUTH_ROLE, 25},
    {"auth_claims", BIND_AUTH_CLAIMS, 3802},
};

struct rewrite {
	struct parse *ps;
	const char *sql;
	struct buf out;
	struct strlist unknown; /* reported already */
};

static unsigned line_of(const struct rewrite *rw, size_t pos)
{
	unsigned line = rw->ps->e->sql_line;

	for (size_t i = 0; i < pos; i++)
		line += rw->sql[i] == '\n';
	return line;
}

/* The number of the bind, from 1. */
static size_t bind_number(struct stmt *s, struct bind b, pg_oid oid)
{
	for (size_t i = 0; i < s->binds; i++)
		if (s->bind[i].source == b.source && s->bind[i].index == b.index)
			return i + 1;
	s->bind = xrealloc(s->bind, s->binds + 1, sizeof(*s->bind));
	s->oid = xrealloc(s->oid, s->binds + 1, sizeof(*s->oid));
	s->bind[s->binds] = b;
	s->oid[s->binds] = oid;
	return ++s->binds;
}

static void use_body(struct parse *ps)
{
	bool any = false;

	for (size_t i = 0; i < ps->e->params; i++) {
		struct param *p = &ps->e->param[i];

		if (p->in == IN_BODY)
			any = p->used = true;
	}
	if (!any)
		parse_error(ps, "`:body` is used, but no @body is declared");
}

/* What the answer depends on joins the cache key. */
static void use_auth(struct parse *ps, enum bind_source source)
{
	struct endpoint *e = ps->e;

	if (e->auth_line == 0)
		e->auth_line = ps->line;
	e->cache.vary_sub |= source == BIND_AUTH_SUB;
	e->cache.vary_role |= source == BIND_AUTH_ROLE;
	e->cache.vary_claims |= source == BIND_AUTH_CLAIMS;
}

static size_t use_given(struct parse *ps, size_t i)
{
	if (given[i].source == BIND_BODY)
		use_body(ps);
	else
		use_auth(ps, given[i].source);
	return bind_number(&ps->e->stmt, (struct bind){.source = given[i].source}, given[i].oid);
}

static void unknown(struct rewrite *rw, const char *name)
{
	if (strlist_has(&rw->unknown, name))
		return;
	strlist_add(&rw->unknown, name, strlen(name));
	if (strncmp(name, "auth_", 5) == 0)
		parse_error(rw->ps,
		            "`:%.60s`: of the caller there are :auth_sub, :auth_role and "
		            ":auth_claims only",
		            name);
	else
		parse_error(rw->ps, "`:%.60s` is not declared: add `-- @query %.60s TYPE`", name,
		            name);
}

/* The number of the parameter called `name`, 0 when there is none (reported). */
static size_t name_number(struct rewrite *rw, const char *name)
{
	struct endpoint *e = rw->ps->e;

	for (size_t i = 0; i < ELEMENTSOF(given); i++)
		if (strcmp(given[i].name, name) == 0)
			return use_given(rw->ps, i);
	for (size_t i = 0; i < e->params; i++) {
		struct param *p = &e->param[i];

		if (strcmp(p->name, name) != 0)
			continue;
		p->used = true;
		return bind_number(&e->stmt, (struct bind){.source = BIND_PARAM, .index = i},
		                   param_oid(p));
	}
	unknown(rw, name);
	return 0;
}

/* Whether a `$1` behind this byte would run into the token that it ends. */
static bool fuses(char c)
{
	return is_param_name((struct slice){&c, 1}) || (c >= '0' && c <= '9') || c == '$' ||
	       (c & 0x80);
}

static void rewrite_param(struct rewrite *rw, const struct scan_param *sp)
{
	_cleanup_free_ char *name = xstrndup(rw->sql + sp->start + 1, sp->end - sp->start - 1);
	struct buf *out = &rw->out;
	size_t number;

	rw->ps->line = line_of(rw, sp->start);
	number = name_number(rw, name);
	if (out->len > 0 && fuses(out->data[out->len - 1]))
		buf_addc(out, ' ');
	buf_addf(out, "$%zu", number);
}

static void rewrite(struct rewrite *rw, const struct scan_result *scan)
{
	size_t from = 0;

	for (size_t i = 0; i < scan->params; i++) {
		buf_add(&rw->out, rw->sql + from, scan->param[i].start - from);
		rewrite_param(rw, &scan->param[i]);
		from = scan->param[i].end;
	}
	buf_add(&rw->out, rw->sql + from, scan->end - from);
}

static void unused_report(struct parse *ps)
{
	for (size_t i = 0; i < ps->e->params; i++) {
		const struct param *p = &ps->e->param[i];

		ps->line = p->line;
		if (!p->used)
			parse_error(ps, "`%s` is declared, but the SQL does not use :%s", p->name,
			            p->name);
	}
}

/* A directive among the SQL would be a comment that looks as if it did something. */
static void late_report(struct parse *ps, const char *p, const char *end)
{
	for (ps->line = ps->e->sql_line; p < end; ps->line++) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		struct cursor c = {p, newline ? newline : end};
		struct slice name;

		p = newline ? newline + 1 : end;
		if (!cursor_take(&c, '-') || c.p == c.end || *c.p++ != '-')
			continue;
		if (!cursor_take(&c, '@'))
			continue;
		name = cursor_word(&c, "");
		if (directive_is_known(name))
			parse_error(ps,
			            "@%.*s stands behind the beginning of the SQL: directives "
			            "go before it",
			            SHOW(name));
	}
}

void sql_read(struct parse *ps, const char *text, size_t len)
{
	struct rewrite rw = {.ps = ps, .sql = text};
	struct scan_result scan = {0};
	const char *why;
	size_t pos;

	if (scan_sql(text, len, &scan, &pos, &why) < 0) {
		ps->line = line_of(&rw, pos);
		parse_error(ps, "%s", why);
	} else {
		rewrite(&rw, &scan);
		unused_report(ps);
		ps->e->stmt.sql = buf_take(&rw.out, &ps->e->stmt.sql_len);
	}
	late_report(ps, text, text + len);
	strlist_done(&rw.unknown);
	scan_result_done(&scan);
}
