/*
 * changes: the stream of changes, as main runs it: what it hears of that is main's to act on wakes
 * main's loop.
 *
 * Main's own, but for what the listener's thread notes.
 */
#ifndef PROVOST_CHANGES_H
#define PROVOST_CHANGES_H

#include <stdatomic.h>

#include "provost/listener.h"

struct config;
struct courier;
struct hub;

/* What there may be news of. */
enum news {
	NEWS_IDENTITIES = 1, /* API keys, revocations */
	NEWS_TRIGGERS = 2,
};

struct changes {
	struct listener *listener;
	struct hub *hub;         /* which tells those who watch a table, once it is there */
	struct courier *courier; /* which has what is published, likewise */
	int wake;                /* eventfd: readable while there is news */
	atomic_uint news;        /* bits of enum news */
};

/* Borrows what it is made of. */
void changes_init(struct changes *c, const struct config *config, struct generations *g,
                  struct snapshot *catalog);
void changes_done(struct changes *c);

/* Tells these as well, from before the listener starts. */
void changes_tell(struct changes *c, struct hub *h, struct courier *courier);

/* Says in the log what stands in the way of hearing changes. */
void changes_warn(const struct config *config);
/* Puts a configuration in force. */
void changes_configure(struct changes *c, const struct config *config);
/* Waits until changes are heard, `ms` at most. */
void changes_await(struct changes *c, int64_t ms);

/* What has come since the last call. */
unsigned changes_take(struct changes *c);

#endif
