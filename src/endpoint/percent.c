#include <errno.h>
#include <string.h>

#include "percent.h"

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
