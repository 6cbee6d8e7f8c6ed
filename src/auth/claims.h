/*
 * claims: from a token's claims, whose origin has been verified, to an identity.
 *
 * Checks in this order: they are JSON; exp, nbf, iat; iss, aud; subject; roles; jti. Pure
 * functions.
 */
#ifndef PROVOST_AUTH_CLAIMS_H
#define PROVOST_AUTH_CLAIMS_H

#include "identity.h"
#include "provost/auth.h"

struct claim_rules {
	enum identity_kind kind;
	const char *issuer;             /* NULL: not looked at */
	const struct strlist *audience; /* NULL: not looked at */
	const char *subject, *roles;    /* names */
	bool sub;                       /* `sub` must be there besides the subject's claim */
	bool scopes; /* a text of roles is separated by blanks, as OAuth's scopes are, too */
	int64_t leeway_s, max_lifetime_s;
	uint64_t origin;
};

/* As auth_identify. */
int claims_identify(const struct claim_rules *rules, const void *text, size_t n, int64_t now_s,
                    struct identity **ret, const char **reason) _must_check_;

/* Adds the roles that a text names, separated by commas, with `scopes` by blanks as well. Blanks
 * around a name are not part of it. */
int claims_add_roles(struct role_set *r, const char *s, size_t n, bool scopes) _must_check_;

#endif
