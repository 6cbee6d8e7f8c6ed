/*
 * encode: a body in a content coding (RFC 9110, section 8.4.1).
 *
 * Runs for milliseconds per megabyte, so on workers only; keeps no state. The same bytes give the
 * same result always: a tag of the body names its encodings as well.
 */
#ifndef PROVOST_ENGINE_ENCODE_H
#define PROVOST_ENGINE_ENCODE_H

#include "provost/cache.h"

enum {
	ENCODE_MIN = 1024,     /* bytes of a body below which nobody should ask: it is one packet
	                          either way */
	ENCODE_MAX = 1 << 30,  /* bytes of a body */
	ENCODE_SAVING_MIN = 5, /* percent */
};

/* Encodes `len` bytes. `*ret` is allocated with malloc, no larger than needed, and the caller's.
 * -ENODATA: the result would not be smaller by ENCODE_SAVING_MIN percent; -EFBIG: past ENCODE_MAX;
 * -ENOMEM. */
int encode_body(enum entry_coding coding, const void *body, size_t len, void **ret,
                size_t *ret_len) _must_check_;

#endif
