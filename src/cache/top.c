#include "top.h"

static size_t smallest(const struct top *t)
{
	size_t at = 0;

	for (size_t i = 1; i < t->count; i++) {
		if (t->entry[i]->hits < t->entry[at]->hits)
			at = i;
	}
	return at;
}

static void add(struct top *t, size_t at, struct entry *e)
{
	t->entry[at] = e;
	e->flags |= FLAG_TOP;
}

void top_hit(struct top *t, struct entry *e)
{
	size_t at;

	if (e->flags & FLAG_TOP)
		return;
	if (t->count < CACHE_TOP) {
		add(t, t->count++, e);
		t->floor = 0;
		return;
	}
	if (e->hits <= t->floor)
		return;
	/* Theirs have grown meanwhile, so this finds out anew how many it takes. */
	at = smallest(t);
	t->floor = t->entry[at]->hits;
	if (e->hits <= t->floor)
		return;
	t->entry[at]->flags &= (uint8_t)~FLAG_TOP;
	add(t, at, e);
}

void top_remove(struct top *t, struct entry *e)
{
	size_t i = 0;

	if (!(e->flags & FLAG_TOP))
		return;
	while (i < t->count && t->entry[i] != e)
		i++;
	ALWAYS(i < t->count);
	t->entry[i] = t->entry[--t->count];
	t->entry[t->count] = NULL;
	e->flags &= (uint8_t)~FLAG_TOP;
}
