#include "apply.h"

#include <string.h>

#include "provost/delay.h"
#include "provost/tags.h"

/* ---- narrowings ---------------------------------------------------------------------- */

void narrowings_done(struct narrowings *n)
{
	free(n->item);
	*n = (struct narrowings){0};
}

static int compare(const void *a, const void *b)
{
	const struct narrowing *x = a, *y = b;
	int r = strcmp(x->table, y->table);

	return r ? r : strcmp(x->column, y->column);
}

static size_t count_all(const struct catalog *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->endpoints; i++)
		n += c->endpoint[i]->dependencies;
	return n;
}

static void add_endpoint(struct narrowings *n, const struct endpoint *e)
{
	for (size_t i = 0; i < e->dependencies; i++) {
		const struct dependency *d = &e->dependency[i];
		if (d->column)
			n->item[n->count++] = (struct narrowing){d->table, d->column};
	}
}

/* The catalogue that was looked at last is still referenced when its successor is there, so that
 * two have never the same address. */
static void look_at(struct narrowings *n, const struct catalog *c)
{
	size_t kept = 0;

	if (n->of == c && !n->failed)
		return;
	narrowings_done(n);
	n->of = c;
	if (!c)
		return;
	n->item = calloc(count_all(c) + 1, sizeof *n->item);
	n->failed = !n->item;
	if (n->failed)
		return;
	for (size_t i = 0; i < c->endpoints; i++)
		add_endpoint(n, c->endpoint[i]);
	qsort(n->item, n->count, sizeof *n->item, compare);
	for (size_t i = 0; i < n->count; i++)
		if (kept == 0 || compare(&n->item[kept - 1], &n->item[i]) != 0)
			n->item[kept++] = n->item[i];
	n->count = kept;
}

/* The first of the table's, or where it would be. */
static size_t first_of(const struct narrowings *n, const char *table)
{
	size_t low = 0, high = n->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (strcmp(n->item[mid].table, table) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- changes ------------------------------------------------------------------------- */

static bool has_column(const struct change *c, const char *name)
{
	for (size_t i = 0; i < c->columns; i++)
		if (!strcmp(c->column[i].name, name))
			return true;
	return false;
}

/* Whether it tells all that answers made from rows of the table are found by. */
static bool tells_all(const struct narrowings *n, const struct change *c)
{
	if (!c->known || n->failed)
		return false;
	for (size_t i = first_of(n, c->table); i < n->count && !strcmp(n->item[i].table, c->table);
	     i++)
		if (!has_column(c, n->item[i].column))
			return false;
	return true;
}

void apply_change(struct generations *g, struct narrowings *n, const struct catalog *catalog,
                  const struct change *c)
{
	ALWAYS(c->kind == CHANGE_TABLE);
	look_at(n, catalog);
	tags_raise_table(g, c->table);
	for (size_t i = 0; i < c->columns; i++)
		for (size_t k = 0; k < c->column[i].values; k++) {
			DELAY(DELAY_TAGS);
			tags_raise_row(g, c->table, c->column[i].name, c->column[i].value[k]);
		}
	DELAY(DELAY_TAGS);
	if (!tells_all(n, c))
		tags_raise_rows(g, c->table);
}
