/*
 * auth: who is calling: bearer JWTs, API keys, NextAuth v4 session cookies.
 *
 * Everything that decides is in memory, in one immutable snapshot of settings, API keys and
 * revocations. auth_identify and auth_identify_again may be called from any thread and do no I/O:
 * they cost one atomic load, for a known token a digest and a short lock, for an unknown one a
 * verification (tens of microseconds). Functions that change something may be called from any
 * thread too, one at a time behind a lock that no caller of auth_identify takes; auth_configure and
 * auth_refresh read files while they hold it. A change is in force for every auth_identify that
 * begins after the function has returned, also for callers that are already known.
 *
 * Bounds: a token has at most AUTH_TOKEN_MAX bytes; AUTH_CACHED_MAX identities are remembered,
 * verified ones only, so nobody without a valid token takes room; AUTH_REVOCATIONS_MAX,
 * APIKEYS_MAX, AUTH_KEYS_MAX: past them a change is refused as a whole and says so.
 * A connection's memory holds one copy of its credentials.
 *
 * Nothing here logs. Reasons are static texts, errors name configuration keys and files; neither
 * ever holds a part of a token or of a secret.
 */
#ifndef PROVOST_AUTH_H
#define PROVOST_AUTH_H

#include "provost/apikey.h"
#include "provost/errors.h"
#include "provost/identity.h"
#include "provost/secret.h"

enum {
	AUTH_TOKEN_MAX = 8 << 10,
	AUTH_CREDENTIALS_MAX = 32 << 10, /* bytes of a field that a connection remembers */
	AUTH_CLAIMS_DEPTH_MAX = 16,      /* arrays and objects within each other */
	AUTH_CHUNKS_MAX = 16,            /* of a cookie */
	AUTH_CACHED_MAX = 16384,
	AUTH_REVOCATIONS_MAX = 65536,
	AUTH_KEYS_MAX = 64,   /* for JWTs */
	AUTH_SECRETS_MAX = 4, /* in force at the same time, while one is being replaced */
	AUTH_SECRET_MIN = 32, /* bytes of an HS256 secret (RFC 7518, section 3.2) */
	AUTH_NEXTAUTH_MIN = 16,
	AUTH_LEEWAY_S = 15,
};

/* ---- options ------------------------------------------------------------------------- */

enum auth_mode {
	AUTH_TOKEN,
	/* Everybody is the administrator `anonymous`. Whoever configures it sees to it that nobody
	 * but this machine can call. */
	AUTH_NONE,
};

/* One secret, and up to AUTH_SECRETS_MAX - 1 that it replaces and that are still accepted. */
struct auth_secrets {
	struct secret *given; /* from the environment (secret_take); the first, if there */
	struct strlist files; /* one line of text each */
};

/* Names of claims. A name is looked for as it is, then as a path: `realm_access.roles`. */
struct auth_claims {
	char *subject; /* default `sub` */
	char *roles;   /* a text, with blanks or commas between several, or an array of texts */
};

struct auth_options {
	enum auth_mode mode;

	/* JWT. Nothing here has a default that accepts anything. */
	struct strlist algorithms;      /* of HS256, RS256, ES256; empty: no JWT is accepted */
	struct auth_secrets jwt_secret; /* HS256 */
	struct strlist key_files;       /* `PATH` or `KID=PATH`: a PEM public key or one JWK */
	char *jwks_file;
	char *issuer;            /* required with `algorithms`; `*`: not looked at */
	struct strlist audience; /* one of them must be in aud; likewise */
	struct auth_claims jwt_claims;

	/* NextAuth; without a secret its cookies are nobody's. */
	struct auth_secrets nextauth_secret;
	struct auth_claims cookie_claims;

	int64_t leeway_s;       /* AUTH_LEEWAY_S */
	int64_t max_lifetime_s; /* a token that is good for longer is refused; 0: no bound */
};

/* Names, leeway and nothing else. auth_options_done frees what is inside. */
void auth_options_init(struct auth_options *o);
void auth_options_done(struct auth_options *o);

/* ---- life ---------------------------------------------------------------------------- */

struct auth;

/* Refuses everybody until it is configured. Exits when out of memory. */
struct auth *auth_new(void);
/* No other thread may use it any more. */
void auth_free(struct auth **a);
#define _cleanup_auth_ _cleanup_(auth_free)

/* Reads and checks everything, then puts it in force at once. -EINVAL, with everything that is
 * wrong in `errs` and nothing changed. `notes` (may be NULL) gets what works but should not stay.
 * Copies the options. Known identities are verified anew. */
int auth_configure(struct auth *a, const struct auth_options *o, struct errors *errs,
                   struct errors *notes) _must_check_;

/* Looks whether a secret or key file has changed since it was read and, if so, reads all of them
 * anew: 1. 0: nothing has changed. -EINVAL: what is there now is wrong, `errs` says what, once per
 * change; the former keys stay in force. Every few seconds, from a thread that may wait for the
 * disk. */
int auth_refresh(struct auth *a, struct errors *errs, struct errors *notes) _must_check_;

enum auth_mode auth_mode(struct auth *a);
/* How far ahead of our clock an issuer's may be, in seconds. */
int64_t auth_leeway_s(struct auth *a);

/* ---- identifying --------------------------------------------------------------------- */

/* Header fields as they came, without blanks around them; data NULL: there is none. Several Cookie
 * fields are joined with `; ` by the caller (RFC 9113, section 8.2.3), a repeated Authorization is
 * refused by it. */
struct auth_field {
	const char *data;
	size_t len;
};
struct credentials {
	struct auth_field authorization;
	struct auth_field cookie;
};

/* 0 with a reference in `*ret`, or
 *   -ENOKEY        there are no credentials,
 *   -EBADMSG       they are not a token, a key or a session,
 *   -EMSGSIZE      they are too large,
 *   -EKEYREJECTED  they are not accepted,
 *   -EKEYEXPIRED   they are too old, or not valid yet,
 *   -EKEYREVOKED   they were revoked,
 *   -ENOMEM;
 * `*reason` is then a static text that may be told to whoever asks: see auth_challenge. `now_s` is
 * the time of day. Authorization decides when both are there, also when it is malformed. */
int auth_identify(struct auth *a, const struct credentials *c, int64_t now_s, struct identity **ret,
                  const char **reason) _must_check_;

/* What one connection remembers; zeroed at first, used by one thread at a time. */
struct auth_memory {
	char *text; /* the field that decided, exactly as it came */
	size_t len;
	bool cookie;
	uint64_t generation; /* of the snapshot; 0: nothing is remembered */
	struct identity *identity;
};

/* The same for the next request of a connection: a comparison when the credentials are the same in
 * full and nothing has changed since. `*ret` belongs to the memory, until its next use; whoever
 * needs it for longer takes a reference. */
int auth_identify_again(struct auth *a, struct auth_memory *m, const struct credentials *c,
                        int64_t now_s, struct identity **ret, const char **reason) _must_check_;
/* Wipes and frees. */
void auth_memory_done(struct auth_memory *m);

/* Whether an identity that somebody holds on to (a WebSocket) would still be accepted: 0, or as
 * auth_identify. After a change of the settings, or of an API key's rights, a token must be
 * presented anew: -EKEYREJECTED. */
int auth_still_valid(struct auth *a, const struct identity *i, int64_t now_s,
                     const char **reason) _must_check_;

enum { AUTH_CHALLENGE_MAX = 256 };
/* The value of WWW-Authenticate for a failed auth_identify (RFC 6750, section 3). */
void auth_challenge(int err, const char *reason, char out[AUTH_CHALLENGE_MAX]);

/* ---- API keys ------------------------------------------------------------------------ */

/* Replaces all of them. Copies. -EINVAL with `errs` and nothing changed: too many, or one of them
 * is not what apikey.h says. */
int auth_keys_set(struct auth *a, const struct apikey *list, size_t n,
                  struct errors *errs) _must_check_;

/* ---- revocations --------------------------------------------------------------------- */

enum revocation_kind {
	REVOKE_TOKEN,   /* by its jti, or an API key by its id */
	REVOKE_SUBJECT, /* tokens and keys of a subject */
};

struct revocation {
	enum revocation_kind kind;
	char *what; /* id or subject, 1 to IDENTITY_SUBJECT_MAX bytes */
	/* REVOKE_SUBJECT: those issued at or before this moment, and those that do not say when.
	 * INT64_MAX: all, for as long as the revocation is there. */
	int64_t issued_before_s;
	/* When no token that it concerns can be valid any more; 0: not known, it is kept. */
	int64_t until_s;
};

/* Replaces all of them. Copies; what is there twice is merged, see auth_revoke. -EINVAL with `errs`
 * and nothing changed. */
int auth_revocations_set(struct auth *a, const struct revocation *list, size_t n,
                         struct errors *errs) _must_check_;
/* Adds one; of two on the same token or subject the later moments hold, so that neither is
 * weakened. -EINVAL: not a revocation; -ENOSPC: there are AUTH_REVOCATIONS_MAX. */
int auth_revoke(struct auth *a, const struct revocation *r) _must_check_;
/* -ENOENT: there is none. */
int auth_unrevoke(struct auth *a, enum revocation_kind kind, const char *what) _must_check_;
/* Drops those whose time has passed, but none that an API key would be good again without. Returns
 * how many. */
size_t auth_revocations_purge(struct auth *a, int64_t now_s);

/* ---- figures ------------------------------------------------------------------------- */

struct auth_stats {
	size_t cached, keys, api_keys, revocations;
	uint64_t generation; /* of the snapshot */
};
void auth_stats(struct auth *a, struct auth_stats *ret);

#endif
