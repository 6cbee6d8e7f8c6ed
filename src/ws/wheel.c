#include "wheel.h"

void wheel_init(struct wheel *w, uint64_t now_ms)
{
	for (size_t i = 0; i < WHEEL_SLOTS; i++)
		LIST_INIT(&w->slot[i]);
	w->step = now_ms / WHEEL_STEP_MS;
	w->armed = 0;
}

void wheel_disarm(struct wheel *w, struct timer *t)
{
	if (!t->at_ms)
		return;
	LIST_REMOVE(t, link);
	t->at_ms = 0;
	w->armed--;
}

void wheel_arm(struct wheel *w, struct timer *t, uint64_t at_ms)
{
	/* A step is looked at once all of it has passed. */
	uint64_t step = MAX(at_ms / WHEEL_STEP_MS, w->step);
	wheel_disarm(w, t);
	t->at_ms = MAX(at_ms, 1);
	LIST_INSERT_HEAD(&w->slot[step % WHEEL_SLOTS], t, link);
	w->armed++;
}

/* What is armed meanwhile goes to a slot further on, as the step has been counted already. */
static void turn(struct wheel *w, size_t slot, uint64_t now_ms,
                 void (*f)(void *arg, struct timer *t), void *arg)
{
	LIST_HEAD(, timer) due;
	struct timer *t, *next;
	LIST_INIT(&due);
	for (t = LIST_FIRST(&w->slot[slot]); t; t = next) {
		next = LIST_NEXT(t, link);
		if (t->at_ms > now_ms)
			continue;
		LIST_REMOVE(t, link);
		LIST_INSERT_HEAD(&due, t, link);
	}
	while ((t = LIST_FIRST(&due))) {
		wheel_disarm(w, t);
		f(arg, t);
	}
}

void wheel_advance(struct wheel *w, uint64_t now_ms, void (*f)(void *arg, struct timer *t),
                   void *arg)
{
	uint64_t end = now_ms / WHEEL_STEP_MS;
	/* After a long pause each slot is looked at once. */
	if (end > w->step + WHEEL_SLOTS)
		w->step = end - WHEEL_SLOTS;
	while (w->step < end) {
		size_t slot = w->step++ % WHEEL_SLOTS;
		turn(w, slot, now_ms, f, arg);
	}
}
