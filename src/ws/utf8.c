#include <string.h>

#include "provost/ws.h"

/* RFC 3629, section 4: what the byte behind the first one may be keeps out overlong forms,
 * surrogates and all past U+10FFFF. */
static bool begin(struct ws_utf8 *u, uint8_t c)
{
	*u = (struct ws_utf8){.low = 0x80, .high = 0xBF};
	if (c < 0x80)
		return true;
	if (c < 0xC2 || c > 0xF4)
		return false;
	u->need = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
	if (c == 0xE0)
		u->low = 0xA0;
	else if (c == 0xED)
		u->high = 0x9F;
	else if (c == 0xF0)
		u->low = 0x90;
	else if (c == 0xF4)
		u->high = 0x8F;
	return true;
}

static bool go_on(struct ws_utf8 *u, uint8_t c)
{
	if (c < u->low || c > u->high)
		return false;
	u->need--;
	u->low = 0x80;
	u->high = 0xBF;
	return true;
}

static size_t skip_ascii(const char *s, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		uint64_t x;
		memcpy(&x, s + i, sizeof x);
		if (x & 0x8080808080808080)
			break;
	}
	return i;
}

bool ws_utf8_feed(struct ws_utf8 *u, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (u->need == 0) {
			i += skip_ascii(s + i, n - i);
			if (i == n)
				break;
		}
		uint8_t c = (uint8_t)s[i];
		if (u->need ? !go_on(u, c) : !begin(u, c))
			return false;
	}
	return true;
}
