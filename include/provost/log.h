/*
 * log: one line per event, in logfmt, and no thread ever waits for it.
 *
 * Any thread may log. A line is formatted on the caller's stack and copied under a short lock into
 * a bounded buffer that one writer thread empties; when the buffer is full the line is dropped and
 * counted, and the next line that fits says how many were lost. Before log_start and after log_stop
 * lines go to stderr directly.
 *
 * Levels: error, someone must act; warn, degraded, and how; info, what an operator wants to see of
 * a healthy run; debug. Never parameters, tokens or rows.
 */
#ifndef PROVOST_LOG_H
#define PROVOST_LOG_H

#include "provost/base.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum log_field_type { LOG_END, LOG_STRING, LOG_SIGNED, LOG_UNSIGNED };

struct log_field {
	enum log_field_type type;
	const char *key;
	const char *s;
	int64_t i;
	uint64_t u;
};

/* Fields of a line: a text (NULL is shown as "-"), a signed and an unsigned number. */
#define LOGS(k, v)                                                                                 \
	{                                                                                          \
		.type = LOG_STRING, .key = (k), .s = (v)                                           \
	}
#define LOGI(k, v)                                                                                 \
	{                                                                                          \
		.type = LOG_SIGNED, .key = (k), .i = (int64_t)(v)                                  \
	}
#define LOGU(k, v)                                                                                 \
	{                                                                                          \
		.type = LOG_UNSIGNED, .key = (k), .u = (uint64_t)(v)                               \
	}

/* log_info("pool: connected", LOGU("connection", id)): ts, level, msg, then the fields in order.
 * Values are quoted where logfmt needs it and control characters escaped; a line longer than
 * LOG_LINE_MAX is cut. */
#define log_error(m, ...) log_write(LOG_LEVEL_ERROR, (m), LOG_FIELDS(__VA_ARGS__))
#define log_warn(m, ...)  log_write(LOG_LEVEL_WARN, (m), LOG_FIELDS(__VA_ARGS__))
#define log_info(m, ...)  log_write(LOG_LEVEL_INFO, (m), LOG_FIELDS(__VA_ARGS__))
#define log_debug(m, ...) log_write(LOG_LEVEL_DEBUG, (m), LOG_FIELDS(__VA_ARGS__))
#define LOG_FIELDS(...)                                                                            \
	(const struct log_field[])                                                                 \
	{                                                                                          \
		__VA_ARGS__ __VA_OPT__(, )                                                         \
		{                                                                                  \
			.type = LOG_END                                                            \
		}                                                                                  \
	}

enum { LOG_LINE_MAX = 4096 };

void log_write(enum log_level level, const char *msg, const struct log_field *fields);

/* Whether a line of that level would be written: to skip costly formatting. */
bool log_enabled(enum log_level level);
void log_set_level(enum log_level level);
/* "error", "warn", "info", "debug", or -EINVAL. */
int log_level_parse(const char *s) _must_check_;

struct errors;
/* Each of them as a line of level error, in `reason`. */
void log_errors(const char *msg, const struct errors *errs);

/* ---- the access log ------------------------------------------------------------------ */

/* Where access lines go: NULL or "off" (nowhere), "stderr", or a file's path, appended to. Opens
 * anew when called again with the same path, so that a rotated file is let go. Negative errno when
 * it cannot be opened; the old target stays. */
int log_access_open(const char *target) _must_check_;
bool log_access_enabled(void);
void log_access(const char *msg, const struct log_field *fields);

/* Lines lost because the buffer was full or the target refused them. */
uint64_t log_dropped(void);

/* ---- life ---------------------------------------------------------------------------- */

/* Starts the writer thread. Once, before other threads. Negative errno. */
int log_start(void) _must_check_;
/* Writes out what is buffered, within a second, and stops the writer. */
void log_stop(void);

#endif
