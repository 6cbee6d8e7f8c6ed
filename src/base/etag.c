#include "provost/etag.h"

#include <errno.h>
#include <string.h>

static const char hex[] = "0123456789abcdef";

void etag_hex(const unsigned char bytes[ETAG_BYTES], char out[ETAG_DIGITS])
{
	for (size_t i = 0; i < ETAG_BYTES; i++) {
		out[2 * i] = hex[bytes[i] >> 4];
		out[2 * i + 1] = hex[bytes[i] & 15];
	}
}

void etag_text(const char digits[ETAG_DIGITS], const char *suffix, char out[ETAG_MAX])
{
	snprintf(out, ETAG_MAX, "\"%.*s%s\"", ETAG_DIGITS, digits, suffix);
}

static int digit(char c)
{
	const char *at = c ? strchr(hex, c) : NULL;
	return at ? (int)(at - hex) : -1;
}

int etag_parse(const char *text, size_t n, unsigned char ret[ETAG_BYTES])
{
	unsigned char bytes[ETAG_BYTES];
	if (n >= 2 && !memcmp(text, "W/", 2)) {
		text += 2;
		n -= 2;
	}
	if (n < ETAG_DIGITS + 2 || text[0] != '"' || text[n - 1] != '"')
		return -EINVAL;
	if (n > ETAG_DIGITS + 2 && text[1 + ETAG_DIGITS] != '-')
		return -EINVAL;
	for (size_t i = 0; i < ETAG_BYTES; i++) {
		int high = digit(text[1 + 2 * i]), low = digit(text[2 + 2 * i]);
		if (high < 0 || low < 0)
			return -EINVAL;
		bytes[i] = (unsigned char)(high << 4 | low);
	}
	memcpy(ret, bytes, sizeof bytes);
	return 0;
}
