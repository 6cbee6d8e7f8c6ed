/*
 * etag: the entity-tag of a body (RFC 9110, section 8.8.3), as it stands in HTTP's ETag and in the
 * messages of a WebSocket: a hash in hexadecimal, with a suffix for each coding but identity.
 *
 * Pure functions.
 */
#ifndef PROVOST_ETAG_H
#define PROVOST_ETAG_H

#include "provost/base.h"

enum {
	ETAG_BYTES = 16,                        /* of a body's hash */
	ETAG_DIGITS = 2 * ETAG_BYTES,           /* of it in hexadecimal */
	ETAG_MAX = 1 + ETAG_DIGITS + 5 + 1 + 1, /* quotes, suffix, NUL */
};

/* Not NUL-terminated. */
void etag_hex(const unsigned char bytes[ETAG_BYTES], char out[ETAG_DIGITS]);
/* The strong tag, with its quotes. `suffix`: "" of identity. */
void etag_text(const char digits[ETAG_DIGITS], const char *suffix, char out[ETAG_MAX]);

/* The hash that a tag of ours, strong or weak and in any coding, is of. -EINVAL: it is none of
 * ours.
 */
int etag_parse(const char *text, size_t n, unsigned char ret[ETAG_BYTES]) _must_check_;

#endif
