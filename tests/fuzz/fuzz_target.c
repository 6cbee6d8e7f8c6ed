/* Any bytes: the parts of a target lie inside it, and none holds what it must not. */
#include <string.h>

#include "provost/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(struct slice part, const char *s, size_t n)
{
	if (part.n == 0)
		return;
	if (part.n == 1 && part.p[0] == '/' && (part.p < s || part.p >= s + n))
		return; /* the path that an absolute-form without one stands for */
	ALWAYS(part.p >= s && part.p + part.n <= s + n);
	for (size_t i = 0; i < part.n; i++)
		ALWAYS(part.p[i] > 0x20 && part.p[i] < 0x7f && part.p[i] != '#');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *s = xcalloc(size ? size : 1, 1);
	struct target t;

	memcpy(s, data, size);
	if (target_parse(s, size, &t) < 0)
		return 0;
	check_part(t.authority, s, size);
	check_part(t.path, s, size);
	check_part(t.query, s, size);
	ALWAYS(t.asterisk == (size == 1 && s[0] == '*'));
	ALWAYS(t.asterisk || (t.path.n > 0 && t.path.p[0] == '/'));
	ALWAYS(!t.path.n || !memchr(t.path.p, '?', t.path.n));
	return 0;
}
