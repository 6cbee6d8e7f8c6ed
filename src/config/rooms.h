/*
 * rooms: [rooms] NAME = roles, the one section whose keys are the operator's own. Private to
 * src/config. Pure functions over the caller's memory.
 */
#ifndef PROVOST_CONFIG_ROOMS_H
#define PROVOST_CONFIG_ROOMS_H

#include "keys.h"

enum { CONFIG_ROOMS_MAX = 1000 };

/* Adds a room. -EINVAL, with what to write instead in `why`: not a room's name, there already, too
 * many, or no roles. */
int rooms_add(struct hub_options *o, const char *name, const char *roles,
              char why[KEY_WHY_MAX]) _must_check_;
bool rooms_equal(const struct hub_options *a, const struct hub_options *b);
void rooms_format(const struct hub_options *o, struct buf *out);
void rooms_done(struct hub_options *o);

#endif
