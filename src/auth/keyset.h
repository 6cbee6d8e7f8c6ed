/*
 * keyset: the keys that JWTs are verified with. Immutable once it is made; any thread.
 *
 * A key belongs to one algorithm, by its own type: an RSA key is RS256's and nobody else's. So
 * whatever a token's header says, a public key is never used as an HS256 secret.
 */
#ifndef PROVOST_AUTH_KEYSET_H
#define PROVOST_AUTH_KEYSET_H

#include <cjose/cjose.h>

#include "json.h"
#include "provost/auth.h"

enum jwt_alg { JWT_HS256, JWT_RS256, JWT_ES256, JWT_ALGS };

/* JWT_ALGS when it is none of them. */
enum jwt_alg jwt_alg_parse(const char *name);
const char *jwt_alg_name(enum jwt_alg a);

struct key {
	enum jwt_alg alg;
	char *kid;        /* NULL: none */
	size_t signature; /* its length in bytes: cjose looks at half of an odd one */
	cjose_jwk_t *jwk; /* RS256, ES256 */
	/* HS256: cjose's keys lie in common memory, so one is made for each use. */
	struct secret *secret[AUTH_SECRETS_MAX];
	size_t secrets;
};

struct keyset {
	struct key key[AUTH_KEYS_MAX];
	size_t count;
	bool accepts[JWT_ALGS]; /* those configured */
};

void keyset_done(struct keyset *ks);

/* The key that a token names. Without `kid` the one that fits the algorithm, if there is just one.
 * NULL with a reason. */
const struct key *keyset_find(const struct keyset *ks, enum jwt_alg alg, const char *kid,
                              const char **reason);

/* ---- filling it: errors name `option` and `file`, and false is returned -------------- */

/* An HS256 key of the secrets in force; takes references. */
bool keyset_add_secrets(struct keyset *ks, struct secret *const *secret, size_t n,
                        const char *option, struct errors *errs);
/* One key: a PEM public key or a JWK. `kid` (may be NULL) names a PEM's, or must be the JWK's. */
bool keyset_add_file(struct keyset *ks, const char *kid, const char *file,
                     const struct secret *text, const char *option, struct errors *errs);
/* All keys of a JWKS (RFC 7517, section 5) that fit an accepted algorithm; others are ignored. */
bool keyset_add_jwks(struct keyset *ks, const char *file, const struct secret *text,
                     const char *option, struct errors *errs);

/* A PEM public key as a JWK, or NULL with what is wrong in `why`: src/auth/pem.c. */
json_t *pem_to_jwk(const struct secret *pem, const char **why);
bool pem_is_like(const struct secret *text);

#endif
