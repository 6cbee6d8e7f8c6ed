/*
 * nextauth: session cookies of NextAuth v4: encrypted tokens (JWE, RFC 7516), `dir` with A256GCM,
 * the key by HKDF-SHA256 from the secret that the front end has.
 */
#ifndef PROVOST_AUTH_NEXTAUTH_H
#define PROVOST_AUTH_NEXTAUTH_H

#include "claims.h"

/* The 32 bytes of the key; NULL when out of memory. */
struct secret *nextauth_key(const struct secret *s);

/* One of the keys must open it. As auth_identify. */
int nextauth_identify(struct secret *const *key, size_t keys, const struct claim_rules *rules,
                      const char *token, size_t n, int64_t now_s, struct identity **ret,
                      const char **reason) _must_check_;

#endif
