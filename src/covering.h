/*
 * covering: the server's regular look at whether changes are told, on a connection of its own.
 *
 * Main thread only. A look blocks for a round trip, COVERING_TIMEOUT_MS at most; a signal to stop
 * cuts it short.
 */
#ifndef PROVOST_COVERING_H
#define PROVOST_COVERING_H

#include "provost/base.h"

struct catalog;
struct config;
struct conn;
struct coverage;
struct generations;

enum {
	COVERING_EVERY_MS = 5000,
	COVERING_APART_MS = 200, /* at least, when news ask for it: any role can send them */
	COVERING_TIMEOUT_MS = 5000,
};

struct covering {
	struct coverage *coverage;
	struct conn *conn; /* NULL: not connected */
	int interrupt;
	uint64_t due_ms; /* the next look */
	uint64_t earliest_ms;
};

/* What waits returns once `interrupt` is readable. */
void covering_init(struct covering *v, struct generations *g, int interrupt);
void covering_done(struct covering *v);

/* Sets which endpoints of the catalogue are covered, and when to look again. 0; -ENOTCONN or
 * -ECANCELED, and nothing has changed. */
int covering_look(struct covering *v, struct catalog *c, const struct config *config);
/* Something may have changed: the next look is due as soon as it may. */
void covering_hasten(struct covering *v);
/* How long until the next look is due. */
int64_t covering_due_in_ms(const struct covering *v);

#endif
