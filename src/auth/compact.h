/*
 * compact: JOSE's compact serialisation (RFC 7515, section 7.1; RFC 7516, section 7.1), strictly.
 *
 * Each part must be base64url in its one canonical spelling: no padding, and the bits that the last
 * character has too many are zero. So a token has one text, and what is cached, compared or revoked
 * under it has no twin. Pure functions.
 */
#ifndef PROVOST_AUTH_COMPACT_H
#define PROVOST_AUTH_COMPACT_H

#include "provost/base.h"

enum { COMPACT_PARTS_MAX = 5 };

struct compact_part {
	const char *text;
	size_t len;
	size_t bytes; /* decoded */
};

/* The number of parts, 1 to COMPACT_PARTS_MAX, or -EBADMSG. The text has at most AUTH_TOKEN_MAX
 * characters. */
int compact_split(const char *s, size_t n,
                  struct compact_part part[COMPACT_PARTS_MAX]) _must_check_;

/* The decoded bytes of a part, `part->bytes` of them, into memory that has room for them. */
void compact_decode(const struct compact_part *part, unsigned char *to);

#endif
