/*
 * logfmt: one line of a log, formatted. Pure but for the clock; no allocation.
 */
#ifndef PROVOST_BASE_LOGFMT_H
#define PROVOST_BASE_LOGFMT_H

#include "provost/log.h"

struct line {
	char text[LOG_LINE_MAX];
	size_t n;
	bool cut; /* it would have been longer; it says so at its end */
};

const char *logfmt_level_name(enum log_level level);

/* ts, level, msg, the fields, a newline. `level` NULL: an access line, which has none. */
void logfmt_line(struct line *l, const char *level, const char *msg, const struct log_field *f);

#endif
