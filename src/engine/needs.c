#include "needs.h"

#include "provost/buf.h"
#include "provost/catalog.h"

void needs_done(struct needs *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->need[i].column);
	free(l->need);
	*l = (struct needs){0};
}

void needs_add(struct needs *l, pg_oid table, const char *column)
{
	l->need = xrealloc(l->need, l->n + 1, sizeof *l->need);
	l->need[l->n++] = (struct need){table, column ? xstrdup(column) : NULL};
}

void needs_of_catalog(struct needs *l, const struct catalog *c)
{
	for (size_t i = 0; i < c->endpoints; i++) {
		const struct endpoint *e = c->endpoint[i];
		for (size_t k = 0; !e->opaque && k < e->dependencies; k++)
			needs_add(l, e->dependency[k].oid, e->dependency[k].column);
	}
}

static char *ended(struct buf *b)
{
	buf_addc(b, '}');
	char *text = buf_take(b, NULL);
	ALWAYS(text);
	return text;
}

char *needs_tables(const struct needs *l)
{
	struct buf b = {0};
	buf_addc(&b, '{');
	for (size_t i = 0; i < l->n; i++)
		buf_addf(&b, "%s%u", i ? "," : "", l->need[i].table);
	return ended(&b);
}

char *needs_columns(const struct needs *l)
{
	struct buf b = {0};
	buf_addc(&b, '{');
	for (size_t i = 0; i < l->n; i++) {
		const char *column = l->need[i].column;
		buf_adds(&b, i ? "," : "");
		buf_adds(&b, column ? "\"" : "NULL");
		for (const char *p = column; p && *p; p++) {
			if (*p == '"' || *p == '\\')
				buf_addc(&b, '\\');
			buf_addc(&b, *p);
		}
		buf_adds(&b, column ? "\"" : "");
	}
	return ended(&b);
}
