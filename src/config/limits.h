/*
 * limits: what the keys of [cache] that are about size mean together. Private to src/config.
 */
#ifndef PROVOST_CONFIG_LIMITS_H
#define PROVOST_CONFIG_LIMITS_H

#include "provost/config.h"

enum { CACHE_SHARE_MIN = 64 * 1024 }; /* bytes of a shard: with less there is room for nothing */

/* Whether the shards' shares are large enough. -EINVAL with an error at file:line. */
int limits_check_capacity(const struct config *c, const char *file, unsigned line,
                          struct errors *errs) _must_check_;
/* Whether the database's words are shown to this machine alone. */
int limits_check_development(const struct config *c, const char *file, unsigned line,
                             struct errors *errs);
/* Keeps max_entry, where it is not set, to what a shard can take; set to more, it is an error at
 * file:line. */
void limits_fit_max_entry(struct config *c, const char *file, unsigned line, struct errors *errs);

/* Once `c` has the shards of the running server: -EINVAL with an error when their shares are too
 * small. max_entry follows, set or not: the restart that the shards need makes it right. */
int limits_keep(struct config *c, struct errors *errs) _must_check_;

#endif
