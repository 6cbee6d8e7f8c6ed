/*
 * signals: SIGTERM and SIGINT, which stop, and SIGHUP, which reloads, as things to wait for.
 *
 * Blocked in all threads; taken by main, and by nobody else. The descriptors are only looked at,
 * never read.
 */
#ifndef PROVOST_SIGNALS_H
#define PROVOST_SIGNALS_H

#include <signal.h>

#include "provost/base.h"

struct signals {
	sigset_t all;
	int stop_fd; /* readable while a signal to stop is pending */
	int any_fd;  /* while any of them is */
};

/* Before the first thread is started. A closed pipe or socket is EPIPE from now on. */
void signals_init(struct signals *g);
void signals_done(struct signals *g);

/* The signal that came within `ms`, or 0. */
int signals_within(const struct signals *g, int64_t ms);
/* Likewise; 0 also when `wake` is readable. */
int signals_or_readable_within(const struct signals *g, int wake, int64_t ms);

static inline bool is_stop(int sig)
{
	return sig == SIGTERM || sig == SIGINT;
}

#endif
