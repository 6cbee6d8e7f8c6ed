/* percent: one byte at a time, for comparing without decoding. Internal to src/endpoint. */
#ifndef PROVOST_ENDPOINT_PERCENT_H
#define PROVOST_ENDPOINT_PERCENT_H

#include "provost/values.h"

static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The decoded byte at `*i` (< in.n), which moves on; -1 for a broken escape. `plus`: `+` is a
 * blank. Inline: routing compares names with it, byte by byte. */
static inline int percent_next(struct slice in, size_t *i, bool plus)
{
	char c = in.p[(*i)++];
	int high, low;

	if (plus && c == '+')
		return ' ';
	if (c != '%')
		return (unsigned char)c;
	if (in.n - *i < 2)
		return -1;
	high = hex_digit(in.p[*i]);
	low = hex_digit(in.p[*i + 1]);
	*i += 2;
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

#endif
