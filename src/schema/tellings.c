#include "tellings.h"

#include <errno.h>
#include <string.h>

#include "triggers_impl.h"

extern const char triggers_sql[];

/* The columns of the result of triggers.sql. */
enum {
	T_MEMBER,
	T_NAME,
	T_SQL,
	T_FUNCTION,
	T_STRANGERS,
	T_SOURCE,
	T_TRIGGER,
	T_MAY = T_TRIGGER + TELLING_TRIGGERS,
	T_OWNER,
	T_TAG,
	T_TAG_JSON,
	T_COLUMN,
	T_COLUMN_IDENT,
	T_COLUMN_JSON,
	T_COLUMN_KEY,
};

void tellings_done(struct tellings *l)
{
	for (size_t i = 0; i < l->n; i++)
		telling_done(&l->telling[i]);
	free(l->telling);
	PQclear(l->rows);
	*l = (struct tellings){0};
}

static const char *text_at(const PGresult *r, int i, int column)
{
	return PQgetisnull(r, i, column) ? NULL : PQgetvalue(r, i, column);
}

static struct telling *add_telling(struct tellings *l, const PGresult *r, int i)
{
	l->telling = xrealloc(l->telling, l->n + 1, sizeof *l->telling);
	struct telling *t = &l->telling[l->n++];
	*t = (struct telling){
	    .name = PQgetvalue(r, i, T_NAME),
	    .sql = PQgetvalue(r, i, T_SQL),
	    .function = PQgetvalue(r, i, T_FUNCTION),
	    .strangers = PQgetvalue(r, i, T_STRANGERS),
	    .source = text_at(r, i, T_SOURCE),
	    .owner = PQgetvalue(r, i, T_OWNER),
	    .may = *PQgetvalue(r, i, T_MAY) == 't',
	};
	for (int k = 0; k < TELLING_TRIGGERS; k++)
		t->trigger[k] = text_at(r, i, T_TRIGGER + k);
	return t;
}

static struct told *add_told(struct telling *t, const PGresult *r, int i)
{
	t->told = xrealloc(t->told, t->tolds + 1, sizeof *t->told);
	struct told *d = &t->told[t->tolds++];
	*d = (struct told){.tag = PQgetvalue(r, i, T_TAG), .json = PQgetvalue(r, i, T_TAG_JSON)};
	return d;
}

static void add_column(struct told *d, const PGresult *r, int i)
{
	d->column = xrealloc(d->column, d->columns + 1, sizeof *d->column);
	d->column[d->columns++] = (struct told_column){
	    .name = PQgetvalue(r, i, T_COLUMN),
	    .ident = PQgetvalue(r, i, T_COLUMN_IDENT),
	    .json = PQgetvalue(r, i, T_COLUMN_JSON),
	    .key = *PQgetvalue(r, i, T_COLUMN_KEY) == 't',
	};
}

int tellings_read(struct admin *a, const struct needs *n, struct tellings *ret, struct errors *errs)
{
	PGresult *r = ret->rows = triggers_ask(a, triggers_sql, n, errs);
	struct telling *t = NULL;
	struct told *d = NULL;

	for (int i = 0; r && i < PQntuples(r); i++) {
		bool first = i == 0 || strcmp(PQgetvalue(r, i, T_MEMBER),
		                              PQgetvalue(r, i - 1, T_MEMBER)) != 0;
		if (first)
			t = add_telling(ret, r, i);
		if (first || strcmp(d->tag, PQgetvalue(r, i, T_TAG)) != 0)
			d = add_told(t, r, i);
		if (!PQgetisnull(r, i, T_COLUMN))
			add_column(d, r, i);
	}
	return r ? 0 : -EINVAL;
}

void tellings_forget_what_is_there(struct tellings *l)
{
	for (size_t i = 0; i < l->n; i++) {
		l->telling[i].source = NULL;
		memset(l->telling[i].trigger, 0, sizeof l->telling[i].trigger);
	}
}
