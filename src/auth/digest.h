/*
 * digest: SHA-256 by OpenSSL. Any thread; fails only when out of memory.
 */
#ifndef PROVOST_AUTH_DIGEST_H
#define PROVOST_AUTH_DIGEST_H

#include "provost/base.h"

enum { DIGEST_LEN = 32 };

/* SHA-256 of `first` and then `n` bytes; `first` keeps apart what must not be taken for each other.
 * -1: of the bytes alone. -ENOMEM. */
int digest_sha256(int first, const void *bytes, size_t n,
                  unsigned char ret[DIGEST_LEN]) _must_check_;

#endif
