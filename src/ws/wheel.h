/*
 * wheel: deadlines of many clients, by slots of WHEEL_STEP_MS. Arming and disarming are constant;
 * a timer fires up to a step late. Those further away than the wheel is round are met again and
 * again. The hub's thread only; the time is a parameter.
 */
#ifndef PROVOST_WS_WHEEL_H
#define PROVOST_WS_WHEEL_H

#include <sys/queue.h>

#include "provost/base.h"

enum { WHEEL_SLOTS = 512, WHEEL_STEP_MS = 50 };

struct timer {
	LIST_ENTRY(timer) link;
	uint64_t at_ms; /* 0: not armed */
};

struct wheel {
	LIST_HEAD(, timer) slot[WHEEL_SLOTS];
	uint64_t step; /* the next to be looked at */
	size_t armed;
};

void wheel_init(struct wheel *w, uint64_t now_ms);
/* Again is as good: the later call holds. */
void wheel_arm(struct wheel *w, struct timer *t, uint64_t at_ms);
void wheel_disarm(struct wheel *w, struct timer *t);

/* Calls `f` for each timer that is due, disarmed; `f` may arm and disarm any. */
void wheel_advance(struct wheel *w, uint64_t now_ms, void (*f)(void *arg, struct timer *t),
                   void *arg);

#endif
