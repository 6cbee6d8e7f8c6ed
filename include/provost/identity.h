/*
 * identity: who is calling, once that has been verified.
 *
 * Immutable and counted, in one allocation; any thread may hold a reference. It says nothing of the
 * token but its id: with an identity alone nobody can call.
 */
#ifndef PROVOST_IDENTITY_H
#define PROVOST_IDENTITY_H

#include <stdatomic.h>

#include "provost/strlist.h"

enum {
	IDENTITY_SUBJECT_MAX = 255, /* bytes; also of a token's id */
	IDENTITY_ROLE_MAX = 64,     /* bytes of one role's name */
	IDENTITY_ROLES_MAX = 64,
};

enum identity_kind {
	IDENTITY_NONE,    /* mode = none: everybody is the same administrator */
	IDENTITY_JWT,     /* a bearer token */
	IDENTITY_API_KEY, /* a key of Provost's own */
	IDENTITY_COOKIE,  /* NextAuth's session: the browser adds it by itself, see from_cookie */
};

struct identity {
	enum identity_kind kind;
	/* A write by it needs a permitted Origin, or Sec-Fetch-Site: same-origin. */
	bool from_cookie;
	const char *subject;  /* 1 to IDENTITY_SUBJECT_MAX bytes of UTF-8, no control characters */
	struct strlist roles; /* lower case (ASCII), sorted, each once */
	const char *roles_text; /* the same, with commas between: for cache keys and :auth_role */
	/* JSON, members sorted, no blanks, without exp, nbf, iat and jti: tokens of one user that
	 * differ only in these and in their signature have the same claims. */
	const char *claims;
	const char *token_id; /* jti, or the API key's id; "" where there is none */
	int64_t issued_s;     /* INT64_MIN: not known */
	int64_t expires_s;    /* the first second in which it is refused; INT64_MAX: never */

	/* Private to src/auth: */
	uint64_t origin; /* generation of the settings that verified it */
	atomic_uint refs;
};

/* The name of a kind, for logs: "none", "jwt", "api-key", "cookie". */
const char *identity_kind_name(enum identity_kind k);

/* Whether it has one of the roles, compared without case (ASCII). An empty list allows nobody. */
bool identity_allows(const struct identity *i, const struct strlist *roles);

struct identity *identity_ref(struct identity *i);
/* Sets `*i` to NULL. */
void identity_unref(struct identity **i);
#define _cleanup_identity_ _cleanup_(identity_unref)

#endif
