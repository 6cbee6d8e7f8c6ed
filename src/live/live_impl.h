/*
 * What the files of live share.
 *
 * live.c  its life; how old an answer is
 * find.c  from a path to an endpoint and a key
 * read.c  one reading
 */
#ifndef PROVOST_LIVE_IMPL_H
#define PROVOST_LIVE_IMPL_H

#include "provost/live.h"

struct live {
	struct snapshot *catalog;
	struct cache *cache;
	struct engine *engine;
	struct generations *generations;
};

#endif
