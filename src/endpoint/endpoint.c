#include <errno.h>
#include <xxhash.h>

#include "parse.h"

static struct slice trim(struct slice s)
{
	while (s.n > 0 && is_blank(s.p[0])) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* Takes the line at `*p`, without its newline. */
static struct slice take_line(const char **p, const char *end)
{
	const char *start = *p, *newline = memchr(start, '\n', (size_t)(end - start));

	*p = newline ? newline + 1 : end;
	return (struct slice){start, (size_t)((newline ? newline : end) - start)};
}

/* Behind the dashes of a line that is a comment and nothing else. */
static bool comment_of(struct slice line, struct slice *ret)
{
	line = trim(line);
	if (line.n < 2 || line.p[0] != '-' || line.p[1] != '-')
		return false;
	*ret = trim((struct slice){line.p + 2, line.n - 2});
	return true;
}

/* What no part of a file may contain; the rest is read only without it. */
static bool encoding_check(struct parse *ps, const char *text, size_t len)
{
	const char *p = text, *end = text + len;

	if (len > ENDPOINT_FILE_MAX) {
		ps->line = 0;
		parse_error(ps, "the file is larger than %d bytes", ENDPOINT_FILE_MAX);
		return false;
	}
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		parse_error(ps, "the file begins with a byte order mark: save it without");
		return false;
	}
	for (ps->line = 1; p < end; ps->line++) {
		struct slice line = take_line(&p, end);

		if (utf8_length(line.p, line.n) < 0 || memchr(line.p, '\0', line.n)) {
			parse_error(ps, "the line is not UTF-8 text");
			return false;
		}
	}
	return true;
}

/* The comment lines at the head. Returns where the SQL begins. */
static const char *header_read(struct parse *ps, const char *text, const char *end)
{
	_cleanup_buf_ struct buf description = {0};
	const char *p = text;

	for (ps->line = 1; p < end; ps->line++) {
		const char *start = p;
		struct slice line = take_line(&p, end), comment;

		if (trim(line).n == 0)
			continue;
		if (!comment_of(line, &comment)) {
			p = start;
			break;
		}
		if (comment.n > 0 && comment.p[0] == '@') {
			directive_read(ps, (struct cursor){comment.p + 1, comment.p + comment.n});
			continue;
		}
		if (description.len > 0)
			buf_addc(&description, '\n');
		buf_add(&description, comment.p, comment.n);
	}
	while (description.len > 0 && description.data[description.len - 1] == '\n')
		description.len--;
	ps->e->description = xstrndup(description.len ? description.data : "", description.len);
	ps->e->sql_line = ps->line;
	return p;
}

static struct endpoint *take(struct endpoint **e)
{
	struct endpoint *taken = *e;

	*e = NULL;
	return taken;
}

struct endpoint *endpoint_parse(const char *name, const char *file, const char *text, size_t len,
                                struct errors *errs)
{
	_cleanup_endpoint_ struct endpoint *e = xcalloc(1, sizeof(*e));
	struct parse ps = {.e = e, .errs = errs, .line = 1};
	size_t before = errors_count(errs);
	const char *sql;

	e->name = xstrdup(name);
	e->file = xstrdup(file);
	e->timeout_ms = -1;
	e->cache.ttl_ms = e->cache.swr_ms = e->cache.max_stale_ms = e->cache.stale_if_error_ms = -1;
	if (!encoding_check(&ps, text, len))
		return NULL;
	sql = header_read(&ps, text, text + len);
	directives_finish(&ps);
	sql_read(&ps, sql, (size_t)(text + len - sql));
	if (errors_count(errs) > before)
		return NULL;
	stmt_seal(&e->stmt);
	e->fingerprint = XXH3_64bits(text, len);
	return take(&e);
}

static void depend_free(struct depend *d)
{
	free(d->table);
	free(d->column);
	free(d->param);
}

static void dependency_free(struct dependency *d)
{
	free(d->table);
	free(d->column);
}

void endpoint_free(struct endpoint **ep)
{
	struct endpoint *e = *ep;

	if (!e)
		return;
	for (size_t i = 0; i < e->segments; i++)
		free(e->segment[i].text);
	for (size_t i = 0; i < e->params; i++)
		param_done(&e->param[i]);
	for (size_t i = 0; i < e->depends; i++)
		depend_free(&e->depend[i]);
	for (size_t i = 0; i < e->dependencies; i++)
		dependency_free(&e->dependency[i]);
	free(e->name);
	free(e->file);
	free(e->description);
	free(e->route);
	free(e->segment);
	free(e->param);
	free(e->depend);
	free(e->dependency);
	for (size_t i = 0; i < e->ways; i++)
		free(e->way[i].name);
	free(e->way);
	free(e->opaque);
	free(e->key_prefix);
	strlist_done(&e->roles);
	strlist_done(&e->cache.tags);
	stmt_done(&e->stmt);
	free(e);
	*ep = NULL;
}

const struct param *endpoint_param(const struct endpoint *e, const char *name)
{
	for (size_t i = 0; i < e->params; i++)
		if (strcmp(e->param[i].name, name) == 0)
			return &e->param[i];
	return NULL;
}

unsigned endpoint_sql_line(const struct endpoint *e, size_t pos)
{
	unsigned line = e->sql_line;

	for (size_t i = 0; i < pos && i < e->stmt.sql_len; i++)
		line += e->stmt.sql[i] == '\n';
	return line;
}
