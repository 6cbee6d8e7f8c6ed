#include "live_impl.h"

struct live *live_new(struct snapshot *catalog, struct cache *cache, struct engine *engine,
                      struct generations *generations)
{
	struct live *l = xcalloc(1, sizeof *l);
	*l = (struct live){catalog, cache, engine, generations};
	return l;
}

void live_free(struct live **l)
{
	free(*l);
	*l = NULL;
}

bool live_is_old(const struct live *l, const gen_slot *slot, size_t slots, uint64_t start)
{
	return generations_raised(l->generations, slot, slots, start);
}

bool live_is_fresh(const struct live *l, const gen_slot *slot, size_t slots, uint64_t start)
{
	return generations_fresh(l->generations, slot, slots, start, clock_ms());
}

uint64_t live_raises(const struct live *l)
{
	return generations_raises(l->generations);
}
