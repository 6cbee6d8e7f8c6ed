/*
 * wait_until: what a test does instead of sleeping.
 */
#ifndef PROVOST_TESTS_WAIT_UNTIL_H
#define PROVOST_TESTS_WAIT_UNTIL_H

#include <check.h>
#include <poll.h>

#include "provost/base.h"

enum { PATIENCE_MS = 60000 }; /* on the busiest of machines, below a sanitizer */

/* Polls a condition for a minute at most. */
#define WAIT_UNTIL(condition)                                                                      \
	do {                                                                                       \
		uint64_t until_ = clock_ms() + PATIENCE_MS;                                        \
		while (!(condition)) {                                                             \
			ck_assert_msg(clock_ms() < until_, "not in time: %s", #condition);         \
			poll(NULL, 0, 1);                                                          \
		}                                                                                  \
	} while (0)

#endif
