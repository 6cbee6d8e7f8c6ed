/*
 * descriptors: how many clients there is room for, by the limit of open files.
 *
 * What the server needs itself (logs, pool, sockets it listens on) comes first; clients have the
 * rest. Main thread; nothing here blocks.
 */
#ifndef PROVOST_DESCRIPTORS_H
#define PROVOST_DESCRIPTORS_H

#include "provost/base.h"

struct config;
struct errors;

/* In force; may be fewer than configured. */
struct clients {
	unsigned connections; /* for requests; only a restart changes it */
	unsigned sockets;     /* WebSockets */
};

/* Raises the soft limit to the hard one. */
void descriptors_raise(void);

/* At the start. 0; -EMFILE when there are too few to serve anybody, which is logged. */
int descriptors_fit(const struct config *c, struct clients *ret) _must_check_;
/* At a reload: whether a larger pool leaves the clients theirs. 0 or -EINVAL. */
int descriptors_check(const struct config *c, const struct clients *now,
                      struct errors *errs) _must_check_;
/* At a reload that passed: how many WebSockets there may be from now on. */
void descriptors_refit(const struct config *c, struct clients *now);

#endif
