/*
 * cookie: NextAuth's session token out of a Cookie field (RFC 6265, section 4.2). Pure functions.
 */
#ifndef PROVOST_AUTH_COOKIE_H
#define PROVOST_AUTH_COOKIE_H

#include "provost/auth.h"

/* Finds `__Secure-next-auth.session-token`, else `next-auth.session-token`, whole or in chunks
 * `.0`,
 * `.1`, …, in any order, and joins it. A name with the prefix wins because only a page of https can
 * have set it. 0; -ENOKEY: there is none; -EBADMSG: a chunk is missing, or there twice, or whole
 * and chunks are there both; -EMSGSIZE: more than AUTH_TOKEN_MAX. */
int cookie_session(const char *field, size_t n, char token[AUTH_TOKEN_MAX], size_t *ret_len,
                   const char **reason) _must_check_;

#endif
