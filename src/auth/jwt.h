/*
 * jwt: signed tokens (RFC 7519 as compact JWS, RFC 7515), verified by cjose.
 */
#ifndef PROVOST_AUTH_JWT_H
#define PROVOST_AUTH_JWT_H

#include "claims.h"
#include "keyset.h"

/* Checks in this order: spelling; header (alg among those accepted, crit, b64, typ); key;
 * signature; claims. Nothing of the claims is read, or told, before the signature is known to be
 * good. */
int jwt_identify(const struct keyset *ks, const struct claim_rules *rules, const char *token,
                 size_t n, int64_t now_s, struct identity **ret, const char **reason) _must_check_;

#endif
