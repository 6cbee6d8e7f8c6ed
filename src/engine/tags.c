#include "provost/tags.h"

#include <string.h>
#include <strings.h>
#include <xxhash.h>

/* ---- the text of a tag --------------------------------------------------------------- */

enum { BLOCK = 256, OWN = '\1', CHAINED = '\2' };

/* A tag as it is put together. What is longer than a block stands for itself by a hash of each
 * block and the one before, so that no length needs memory, or is cut. */
struct text {
	char block[BLOCK];
	size_t n;
	uint64_t hash; /* of the full blocks */
	bool chained;
};

static void text_add(struct text *t, const char *s, size_t n)
{
	while (n > 0) {
		if (t->n == BLOCK) {
			t->hash = XXH3_64bits_withSeed(t->block, BLOCK, t->hash);
			t->chained = true;
			t->n = 0;
		}
		size_t k = MIN(n, BLOCK - t->n);
		memcpy(t->block + t->n, s, k);
		t->n += k;
		s += k;
		n -= k;
	}
}

static gen_slot text_slot(const struct generations *g, const struct text *t)
{
	if (!t->chained)
		return generations_slot(g, t->block, t->n);
	struct {
		uint64_t kind, hash;
	} whole = {CHAINED, XXH3_64bits_withSeed(t->block, t->n, t->hash)};
	return generations_slot(g, &whole, sizeof whole);
}

static void text_begin(struct text *t)
{
	t->n = 0;
	t->hash = 0;
	t->chained = false;
}

/* The slot of the three pieces as one text. */
static gen_slot slot_of(const struct generations *g, const char *a, size_t a_len, const char *b,
                        const char *c)
{
	struct text t;
	text_begin(&t);
	text_add(&t, a, a_len);
	text_add(&t, b, strlen(b));
	text_add(&t, c, strlen(c));
	return text_slot(g, &t);
}

static gen_slot own_slot(const struct generations *g, const char *endpoint)
{
	static const char own[] = {OWN};
	return slot_of(g, own, sizeof own, endpoint, "");
}

/* ---- rows ---------------------------------------------------------------------------- */

struct out {
	const struct generations *g;
	gen_slot *slot;
	size_t n, max;
};

static bool out_add(struct out *o, gen_slot s)
{
	if (o->n == o->max)
		return false;
	o->slot[o->n++] = s;
	return true;
}

static void row_begin(struct text *t, const char *table, const char *column)
{
	text_begin(t);
	text_add(t, table, strlen(table));
	text_add(t, ":", 1);
	text_add(t, column, strlen(column));
	text_add(t, "=", 1);
}

static gen_slot row_slot(const struct generations *g, const char *table, const char *column,
                         const char *value)
{
	struct text t;
	row_begin(&t, table, column);
	text_add(&t, value, strlen(value));
	return text_slot(g, &t);
}

/* One element of an array literal, from its first byte, into the tag. Returns where it ends, NULL
 * when it does not; `*ret_null` when it is the word NULL. */
static const char *element_add(struct text *t, const char *p, bool *ret_null)
{
	const char *start = p;
	bool quoted = *p == '"';
	for (p += quoted; quoted ? *p != '"' : *p != ',' && *p != '}'; p++) {
		if (*p == '\\')
			p++;
		if (!*p)
			return NULL;
		text_add(t, p, 1);
	}
	*ret_null = !quoted && p - start == 4 && strncasecmp(start, "NULL", 4) == 0;
	return p + quoted;
}

/* The tags of an array's elements. False where there is none, or no room, or it is no array of one
 * dimension as values.h writes them. */
static bool add_elements(struct out *o, const struct dependency *d, const char *array)
{
	size_t before = o->n;
	const char *p = array;
	if (*p != '{' || p[1] == '}')
		return false;
	do {
		struct text t;
		bool null;
		row_begin(&t, d->table, d->column);
		p = element_add(&t, p + 1, &null);
		if (!p || (!null && !out_add(o, text_slot(o->g, &t))))
			return false;
	} while (*p == ',');
	return *p == '}' && p[1] == '\0' && o->n > before;
}

static bool add_rows(struct out *o, const struct endpoint *e, const struct dependency *d,
                     const char *const *values)
{
	const char *value = d->column ? values[d->param] : NULL;
	if (!value)
		return false;
	if (e->param[d->param].array)
		return add_elements(o, d, value);
	return out_add(o, row_slot(o->g, d->table, d->column, value));
}

/* ---- tables -------------------------------------------------------------------------- */

/* Behind the last of the dependencies from `i` on that are on the same table. */
static size_t table_end(const struct endpoint *e, size_t i)
{
	size_t k = i + 1;
	while (k < e->dependencies && !strcmp(e->dependency[k].table, e->dependency[i].table))
		k++;
	return k;
}

/* The tags of one table, all of whose dependencies are `i` up to `end`: of rows, or else of the
 * whole. */
static void add_table(struct out *o, const struct endpoint *e, size_t i, size_t end,
                      const char *const *values)
{
	const char *table = e->dependency[i].table;
	size_t before = o->n;
	bool rows = out_add(o, slot_of(o->g, table, strlen(table), ":*", ""));
	for (; rows && i < end; i++)
		rows = add_rows(o, e, &e->dependency[i], values);
	if (rows)
		return;
	o->n = before;
	ALWAYS(out_add(o, slot_of(o->g, table, strlen(table), "", "")));
}

size_t tags_of(const struct generations *g, const struct endpoint *e, const char *const *values,
               gen_slot *slot, size_t max)
{
	ALWAYS(max >= TAGS_MIN);
	struct out o = {.g = g, .slot = slot, .max = max};
	size_t later = 0;
	ALWAYS(out_add(&o, own_slot(g, e->name)));
	for (size_t i = 0; i < e->cache.tags.count; i++) {
		const char *tag = e->cache.tags.item[i];
		ALWAYS(out_add(&o, slot_of(g, tag, strlen(tag), "", "")));
	}
	for (size_t i = 0; i < e->dependencies; i = table_end(e, i))
		later++;
	/* What is kept free is enough for one tag of each table that is still to come. */
	ALWAYS(o.n + later <= max);
	for (size_t i = 0, end; i < e->dependencies; i = end) {
		end = table_end(e, i);
		o.max = max - --later;
		add_table(&o, e, i, end, values);
	}
	return o.n;
}

/* ---- raising ------------------------------------------------------------------------- */

void tags_raise_table(struct generations *g, const char *table)
{
	generations_raise(g, slot_of(g, table, strlen(table), "", ""));
}

void tags_raise_rows(struct generations *g, const char *table)
{
	generations_raise(g, slot_of(g, table, strlen(table), ":*", ""));
}

void tags_raise_row(struct generations *g, const char *table, const char *column, const char *value)
{
	generations_raise(g, row_slot(g, table, column, value));
}

void tags_raise(struct generations *g, const char *tag, size_t n)
{
	generations_raise(g, slot_of(g, tag, n, "", ""));
	if (!memchr(tag, ':', n))
		generations_raise(g, slot_of(g, tag, n, ":*", ""));
}

void tags_raise_endpoint(struct generations *g, const char *name)
{
	generations_raise(g, own_slot(g, name));
}
