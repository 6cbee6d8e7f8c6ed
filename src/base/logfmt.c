#include "logfmt.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { LINE_TAIL = 16 }; /* bytes kept for ` cut=yes` and the newline */

/* All of it or, from the first that does not fit, nothing more. */
static void put(struct line *l, const char *s, size_t n)
{
	if (l->cut || l->n + n > sizeof(l->text) - LINE_TAIL) {
		l->cut = true;
		return;
	}
	memcpy(l->text + l->n, s, n);
	l->n += n;
}

static void puts_line(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/* Into the tail that put leaves free. */
static void put_tail(struct line *l, const char *s)
{
	size_t n = strlen(s);

	ALWAYS(l->n + n <= sizeof(l->text));
	memcpy(l->text + l->n, s, n);
	l->n += n;
}

static void put_timestamp(struct line *l)
{
	/* gmtime_r takes a lock of the C library's; once a second and thread is seldom enough. */
	static _Thread_local time_t second = -1;
	static _Thread_local char prefix[32];
	struct timespec now;
	char ms[8];

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != second) {
		struct tm tm;

		gmtime_r(&now.tv_sec, &tm);
		strftime(prefix, sizeof(prefix), "ts=%Y-%m-%dT%H:%M:%S", &tm);
		second = now.tv_sec;
	}
	puts_line(l, prefix);
	snprintf(ms, sizeof(ms), ".%03uZ", (unsigned)(now.tv_nsec / 1000000) % 1000);
	puts_line(l, ms);
}

/* The bytes of the character at `s` when it can be shown as it is, or 0: a control character (C1
 * included, terminals obey them) or no UTF-8. */
static size_t printable(const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	if (c < 0x20 || c == 0x7f)
		return 0;
	if (len > n || utf8_length(s, len) != 1)
		return 0;
	if (c == 0xc2 && (unsigned char)s[1] < 0xa0)
		return 0;
	return len;
}

static void put_escaped(struct line *l, unsigned char c)
{
	char e[8];

	switch (c) {
	case '\n':
		puts_line(l, "\\n");
		break;
	case '\r':
		puts_line(l, "\\r");
		break;
	case '\t':
		puts_line(l, "\\t");
		break;
	default:
		snprintf(e, sizeof(e), "\\x%02x", c);
		puts_line(l, e);
	}
}

static bool needs_quotes(const char *s, size_t n)
{
	if (n == 0)
		return true;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= 0x20 || c >= 0x7f || c == '"' || c == '=' || c == '\\')
			return true;
	}
	return false;
}

static void put_value(struct line *l, const char *s)
{
	/* One line's worth is all that can be shown: no need to look at the rest. */
	size_t n = strnlen(s, LOG_LINE_MAX);

	if (!needs_quotes(s, n)) {
		/* Piece by piece, so that a long one is cut rather than left out. */
		for (size_t i = 0; i < n && !l->cut; i += 64)
			put(l, s + i, MIN(n - i, (size_t)64));
		return;
	}
	put(l, "\"", 1);
	if (l->cut)
		return;
	for (size_t i = 0; i < n && !l->cut;) {
		size_t len = printable(s + i, n - i);

		if (len == 0) {
			put_escaped(l, (unsigned char)s[i]);
			i++;
			continue;
		}
		if (s[i] == '"' || s[i] == '\\')
			put(l, (char[]){'\\', s[i]}, 2);
		else
			put(l, s + i, len);
		i += len;
	}
	put_tail(l, "\"");
}

static void put_key(struct line *l, const char *key)
{
	char text[80];
	int n = snprintf(text, sizeof(text), " %s=", key);

	ALWAYS(n > 0 && (size_t)n < sizeof(text));
	put(l, text, (size_t)n);
}

static void put_field(struct line *l, const struct log_field *f)
{
	char number[32];

	put_key(l, f->key);
	if (l->cut)
		return;
	switch (f->type) {
	case LOG_STRING:
		put_value(l, f->s ? f->s : "-");
		break;
	case LOG_SIGNED:
		snprintf(number, sizeof(number), "%" PRId64, f->i);
		puts_line(l, number);
		break;
	case LOG_UNSIGNED:
		snprintf(number, sizeof(number), "%" PRIu64, f->u);
		puts_line(l, number);
		break;
	case LOG_END:
		break;
	}
}

const char *logfmt_level_name(enum log_level level)
{
	static const char *const names[] = {
	    [LOG_LEVEL_ERROR] = "error",
	    [LOG_LEVEL_WARN] = "warn",
	    [LOG_LEVEL_INFO] = "info",
	    [LOG_LEVEL_DEBUG] = "debug",
	};

	return names[level];
}

void logfmt_line(struct line *l, const char *level, const char *msg, const struct log_field *f)
{
	l->n = 0;
	l->cut = false;
	put_timestamp(l);
	if (level) {
		put_key(l, "level");
		puts_line(l, level);
	}
	if (msg) {
		put_key(l, "msg");
		put_value(l, msg);
	}
	for (; f && f->type != LOG_END && !l->cut; f++)
		put_field(l, f);
	put_tail(l, l->cut ? " cut=yes\n" : "\n");
}
