#include "recency.h"

static void put_in_front(struct recency *r, struct entry *e)
{
	e->newer = NULL;
	e->older = r->newest;
	if (r->newest)
		r->newest->newer = e;
	else
		r->oldest = e;
	r->newest = e;
	e->moved = r->clock;
}

static void take_out(struct recency *r, struct entry *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		r->newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		r->oldest = e->newer;
}

void recency_insert(struct recency *r, struct entry *e)
{
	r->clock++;
	put_in_front(r, e);
	r->count++;
}

void recency_hit(struct recency *r, struct entry *e)
{
	if ((uint32_t)(r->clock - e->moved) <= r->count / 8)
		return;
	take_out(r, e);
	put_in_front(r, e);
}

void recency_remove(struct recency *r, struct entry *e)
{
	ALWAYS(r->count > 0);
	take_out(r, e);
	e->newer = e->older = NULL;
	r->count--;
}

struct entry *recency_victim(const struct recency *r)
{
	return r->oldest;
}
