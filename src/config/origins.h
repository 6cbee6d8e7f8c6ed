/*
 * origins: web origins as browsers send them (RFC 6454, section 6.2). Pure.
 */
#ifndef PROVOST_CONFIG_ORIGINS_H
#define PROVOST_CONFIG_ORIGINS_H

#include "provost/strlist.h"

enum { ORIGINS_MAX = 64 };

/* Replaces `*l` by the comma-separated origins of `text`, in lower case, without default ports and
 * repetitions: what a browser's Origin header can be compared with byte by byte. -EINVAL with what
 * to write instead in `why`, and nothing changed. */
int origins_read(const char *text, struct strlist *l, char *why, size_t n) _must_check_;

#endif
