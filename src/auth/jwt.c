#include "jwt.h"

#include <errno.h>
#include <openssl/err.h>
#include <strings.h>

#include "jose.h"
#include "refuse.h"

/* ---- header -------------------------------------------------------------------------- */

/* Absent, or one that says "an access token" (RFC 7519, section 5.1; RFC 9068): so that a token
 * made for something else, such as a logout token, is not one here. */
static bool is_typ_accepted(const json_t *typ)
{
	const char *s = json_string_value(typ);

	if (!typ)
		return true;
	if (!s)
		return false;
	if (strncasecmp(s, "application/", 12) == 0)
		s += 12;
	return strcasecmp(s, "JWT") == 0 || strcasecmp(s, "at+jwt") == 0;
}

static int check_header(const struct keyset *ks, const json_t *h, const struct key **ret,
                        const char **reason)
{
	const json_t *kid = json_member(h, "kid");
	const char *name = json_string_value(json_member(h, "alg"));
	enum jwt_alg alg = name ? jwt_alg_parse(name) : JWT_ALGS;

	if (alg == JWT_ALGS || !ks->accepts[alg])
		return refuse(reason, -EKEYREJECTED, "the token's algorithm is not accepted");
	if (!is_typ_accepted(json_member(h, "typ")))
		return refuse(reason, -EKEYREJECTED, "the token is of another type");
	if (kid && !json_is_string(kid))
		return refuse(reason, -EBADMSG, "the token's header is malformed");
	*ret = keyset_find(ks, alg, json_string_value(kid), reason);
	return *ret ? 0 : -EKEYREJECTED;
}

/* ---- signature ----------------------------------------------------------------------- */

static bool verify_with_secrets(cjose_jws_t *jws, const struct key *k)
{
	cjose_err err;
	bool ok = false;

	for (size_t i = 0; !ok && i < k->secrets; i++) {
		cjose_jwk_t *jwk = jose_key_new(k->secret[i]);

		ok = jwk && cjose_jws_verify(jws, jwk, &err);
		jose_key_release(jwk, k->secret[i]);
	}
	return ok;
}

/* cjose chooses by the header as it read it itself: it must have read the same. */
static bool is_alg(cjose_jws_t *jws, enum jwt_alg alg)
{
	cjose_err err;
	const char *name = cjose_header_get(cjose_jws_get_protected(jws), "alg", &err);

	return name && strcmp(name, jwt_alg_name(alg)) == 0;
}

static bool verify(cjose_jws_t *jws, const struct key *k)
{
	cjose_err err;
	bool ok;

	if (!is_alg(jws, k->alg))
		return false;
	ok =
	    k->alg == JWT_HS256 ? verify_with_secrets(jws, k) : cjose_jws_verify(jws, k->jwk, &err);
	/* The queue of errors is the thread's, and others on it use OpenSSL too. */
	ERR_clear_error();
	return ok;
}

/* ---- token --------------------------------------------------------------------------- */

static int verify_and_read(const struct key *k, const struct claim_rules *rules, const char *token,
                           size_t n, int64_t now_s, struct identity **ret, const char **reason)
{
	cjose_err err;
	cjose_jws_t *jws = cjose_jws_import(token, n, &err);
	uint8_t *text;
	size_t len;
	int r;

	if (!jws)
		return refuse(reason, -EBADMSG, "the token is malformed");
	if (!verify(jws, k))
		r = refuse(reason, -EKEYREJECTED, "the token's signature is wrong");
	else if (!cjose_jws_get_plaintext(jws, &text, &len, &err))
		r = refuse(reason, -EBADMSG, "the token is malformed");
	else
		r = claims_identify(rules, text, len, now_s, ret, reason);
	cjose_jws_release(jws);
	return r;
}

int jwt_identify(const struct keyset *ks, const struct claim_rules *rules, const char *token,
                 size_t n, int64_t now_s, struct identity **ret, const char **reason)
{
	struct compact_part part[COMPACT_PARTS_MAX];
	_cleanup_json_ json_t *h = NULL;
	const struct key *k;
	int r;

	if (compact_split(token, n, part) != 3)
		return refuse(reason, -EBADMSG, "the token is malformed");
	h = jose_header(&part[0]);
	if (!h)
		return refuse(reason, -EBADMSG, "the token's header is malformed or not supported");
	r = check_header(ks, h, &k, reason);
	if (r < 0)
		return r;
	if (part[2].bytes != k->signature)
		return refuse(reason, -EKEYREJECTED, "the token's signature is wrong");
	return verify_and_read(k, rules, token, n, now_s, ret, reason);
}
