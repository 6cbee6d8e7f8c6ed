#include "compact.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "provost/auth.h"

enum { VARIANT = sodium_base64_VARIANT_URLSAFE_NO_PADDING };

static bool decode(const char *s, size_t n, unsigned char *to, size_t max, size_t *ret_len)
{
	return sodium_base642bin(to, max, s, n, NULL, ret_len, NULL, VARIANT) == 0;
}

static int take_part(const char *s, size_t n, struct compact_part *part)
{
	unsigned char scratch[AUTH_TOKEN_MAX];
	bool ok = decode(s, n, scratch, sizeof scratch, &part->bytes);

	/* A part may be what was encrypted, or a key's. */
	sodium_memzero(scratch, part->bytes);
	part->text = s;
	part->len = n;
	return ok ? 0 : -EBADMSG;
}

int compact_split(const char *s, size_t n, struct compact_part part[COMPACT_PARTS_MAX])
{
	int count = 0;

	for (;;) {
		const char *dot = memchr(s, '.', n);
		size_t len = dot ? (size_t)(dot - s) : n;

		if (count == COMPACT_PARTS_MAX || take_part(s, len, &part[count]) < 0)
			return -EBADMSG;
		count++;
		if (!dot)
			return count;
		s += len + 1;
		n -= len + 1;
	}
}

void compact_decode(const struct compact_part *part, unsigned char *to)
{
	size_t len = 0;

	ALWAYS(decode(part->text, part->len, to, part->bytes, &len) && len == part->bytes);
}
