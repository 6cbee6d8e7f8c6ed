#include <errno.h>
#include <string.h>

#include "percent.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int percent_next(struct slice in, size_t *i, bool plus)
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

int percent_decode(struct slice in, bool plus, struct buf *out)
{
	char *to = buf_reserve(out, in.n);
	size_t n = 0;

	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < in.n;) {
		int c = percent_next(in, &i, plus);

		if (c < 0)
			return -EINVAL;
		to[n++] = (char)c;
	}
	if (utf8_length(to, n) < 0 || memchr(to, '\0', n))
		return -EILSEQ;
	out->len += n;
	return 0;
}
