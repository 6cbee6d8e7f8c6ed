#include <errno.h>
#include <sodium.h>
#include <strings.h>

#include "auth_impl.h"
#include "cookie.h"
#include "jwt.h"
#include "nextauth.h"
#include "refuse.h"

/* ---- tokens, cached ------------------------------------------------------------------ */

static int verify(const struct settings *s, enum identity_kind kind, const char *token, size_t n,
                  int64_t now_s, struct identity **ret, const char **reason)
{
	if (kind == IDENTITY_JWT)
		return jwt_identify(&s->keys, &s->jwt_rules, token, n, now_s, ret, reason);
	return nextauth_identify(s->nextauth, s->nextauth_keys, &s->cookie_rules, token, n, now_s,
	                         ret, reason);
}

/* The digest begins with the kind: what is good as a cookie is not good in Authorization, which
 * would need no Origin. */
static int identify_token(struct auth *a, const struct auth_state *st, enum identity_kind kind,
                          const char *token, size_t n, int64_t now_s, struct identity **ret,
                          const char **reason)
{
	unsigned char digest[DIGEST_LEN];
	struct identity *i;
	int r;

	if (digest_sha256((int)kind, token, n, digest) < 0)
		return refuse(reason, -ENOMEM, "out of memory");
	i = idcache_get(a->cache, digest, st->settings->generation, now_s);
	if (!i) {
		r = verify(st->settings, kind, token, n, now_s, &i, reason);
		if (r < 0)
			return r;
		idcache_put(a->cache, digest, i, now_s);
	}
	*ret = i;
	return 0;
}

/* ---- Authorization ------------------------------------------------------------------- */

/* Bearer, in any case, blanks, and b64token (RFC 6750, section 2.1). */
static int bearer_token(const struct auth_field *f, const char **ret_token, size_t *ret_len,
                        const char **reason)
{
	static const char marks[] = "-._~+/";
	const char *s = f->data, *end = f->data + f->len;
	const char *token;

	if (f->len < 7 || strncasecmp(s, "Bearer ", 7) != 0)
		return refuse(reason, -EBADMSG,
		              "the Authorization field is not of the scheme Bearer");
	for (s += 7; s < end && *s == ' '; s++)
		;
	token = s;
	for (; s < end; s++)
		if (!(*s >= '0' && *s <= '9') && !(*s >= 'A' && *s <= 'Z') &&
		    !(*s >= 'a' && *s <= 'z') && !memchr(marks, *s, sizeof marks - 1))
			break;
	while (s < end && s > token && *s == '=')
		s++;
	if (s != end || s == token)
		return refuse(reason, -EBADMSG, "the bearer token is malformed");
	*ret_token = token;
	*ret_len = (size_t)(end - token);
	if (*ret_len > AUTH_TOKEN_MAX)
		return refuse(reason, -EMSGSIZE, "the bearer token is too large");
	return 0;
}

static int identify_bearer(struct auth *a, const struct auth_state *st, const struct auth_field *f,
                           int64_t now_s, struct identity **ret, const char **reason)
{
	const char *token;
	size_t n;
	int r = bearer_token(f, &token, &n, reason);

	if (r < 0)
		return r;
	if (apikey_is_like(token, n))
		return keytable_identify(st->keys, token, n, now_s, ret, reason);
	if (!st->settings->jwt)
		return refuse(reason, -EKEYREJECTED, "only API keys are accepted");
	return identify_token(a, st, IDENTITY_JWT, token, n, now_s, ret, reason);
}

/* ---- Cookie -------------------------------------------------------------------------- */

static int identify_cookie(struct auth *a, const struct auth_state *st, const struct auth_field *f,
                           int64_t now_s, struct identity **ret, const char **reason)
{
	char token[AUTH_TOKEN_MAX];
	size_t n;
	int r;

	/* Where no session is accepted, the front end's cookie is one of many others. */
	if (st->settings->nextauth_keys == 0)
		return refuse(reason, -ENOKEY, "there are no credentials");
	r = cookie_session(f->data, f->len, token, &n, reason);
	if (r < 0)
		return r;
	r = identify_token(a, st, IDENTITY_COOKIE, token, n, now_s, ret, reason);
	sodium_memzero(token, n);
	return r;
}

/* ---- all together -------------------------------------------------------------------- */

int auth_identify_with(struct auth *a, const struct auth_state *st, const struct credentials *c,
                       int64_t now_s, struct identity **ret, const char **reason)
{
	struct identity *i = NULL;
	int r;

	if (st->settings->mode == AUTH_NONE && st->settings->anonymous) {
		*ret = identity_ref(st->settings->anonymous);
		return 0;
	}
	if (c->authorization.data)
		r = identify_bearer(a, st, &c->authorization, now_s, &i, reason);
	else if (c->cookie.data)
		r = identify_cookie(a, st, &c->cookie, now_s, &i, reason);
	else
		r = refuse(reason, -ENOKEY, "there are no credentials");
	if (r < 0)
		return r;
	if (revocations_match(st->revocations, i)) {
		identity_unref(&i);
		return refuse(reason, -EKEYREVOKED, "the token is revoked");
	}
	*ret = i;
	return 0;
}

int auth_identify(struct auth *a, const struct credentials *c, int64_t now_s, struct identity **ret,
                  const char **reason)
{
	CHECK_MAGIC(a, AUTH_MAGIC);
	return auth_identify_with(a, auth_state(a), c, now_s, ret, reason);
}

int auth_still_valid(struct auth *a, const struct identity *i, int64_t now_s, const char **reason)
{
	const struct auth_state *st;
	int r = 0;

	CHECK_MAGIC(a, AUTH_MAGIC);
	st = auth_state(a);
	if (i->kind == IDENTITY_API_KEY && st->settings->mode == AUTH_TOKEN)
		r = keytable_check(st->keys, i, now_s, reason);
	else if (i->origin != st->settings->generation)
		r = refuse(reason, -EKEYREJECTED, "the settings have changed");
	else if (now_s >= i->expires_s)
		r = refuse(reason, -EKEYEXPIRED, "the token has expired");
	if (r == 0 && revocations_match(st->revocations, i))
		r = refuse(reason, -EKEYREVOKED, "the token is revoked");
	return r;
}

void auth_challenge(int err, const char *reason, char out[AUTH_CHALLENGE_MAX])
{
	/* Whoever has shown nothing is told what to show, not what was wrong with it (RFC 6750,
	 * section 3.1). */
	if (err == -ENOKEY || !reason)
		snprintf(out, AUTH_CHALLENGE_MAX, "Bearer realm=\"provost\"");
	else
		snprintf(out, AUTH_CHALLENGE_MAX,
		         "Bearer realm=\"provost\", error=\"invalid_token\", "
		         "error_description=\"%s\"",
		         reason);
}
