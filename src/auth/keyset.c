#include "keyset.h"

#include <openssl/err.h>
#include <sodium.h>

enum {
	RSA_BITS_MIN = 2048, /* RFC 7518, section 3.3 */
	RSA_BITS_MAX = 8192, /* a verification of more would take milliseconds */
	NUMBER_MAX = RSA_BITS_MAX / 8 + 1,
	JSON_DEPTH_MAX = 8,
};

static const char *const alg_name[JWT_ALGS] = {"HS256", "RS256", "ES256"};

enum jwt_alg jwt_alg_parse(const char *name)
{
	for (int a = 0; a < JWT_ALGS; a++)
		if (strcmp(name, alg_name[a]) == 0)
			return (enum jwt_alg)a;
	return JWT_ALGS;
}

const char *jwt_alg_name(enum jwt_alg a)
{
	ALWAYS(a < JWT_ALGS);
	return alg_name[a];
}

static void key_done(struct key *k)
{
	free(k->kid);
	cjose_jwk_release(k->jwk);
	for (size_t i = 0; i < k->secrets; i++)
		secret_unref(&k->secret[i]);
	*k = (struct key){.kid = NULL};
}

void keyset_done(struct keyset *ks)
{
	for (size_t i = 0; i < ks->count; i++)
		key_done(&ks->key[i]);
	ks->count = 0;
}

static bool has_kid(const struct key *k, const char *kid)
{
	return k->kid && strcmp(k->kid, kid) == 0;
}

const struct key *keyset_find(const struct keyset *ks, enum jwt_alg alg, const char *kid,
                              const char **reason)
{
	const struct key *found = NULL;

	for (size_t i = 0; i < ks->count; i++) {
		const struct key *k = &ks->key[i];

		if (k->alg != alg || (kid && !has_kid(k, kid)))
			continue;
		if (found) {
			*reason = "the token does not say which key it is signed with";
			return NULL;
		}
		found = k;
	}
	if (!found)
		*reason = "the token is signed with an unknown key";
	return found;
}

/* ---- one key from a JWK -------------------------------------------------------------- */

/* What keeps a JWK from being used; a static text. */
typedef const char *why_t;

static const char *text_member(const json_t *o, const char *name)
{
	return json_string_value(json_member(o, name));
}

/* A base64url member as bytes, without leading zeros. */
static bool number_member(const json_t *o, const char *name, unsigned char *to, size_t max,
                          size_t *ret_len)
{
	const json_t *j = json_member(o, name);
	size_t len, zeros = 0;

	if (!json_is_string(j) ||
	    sodium_base642bin(to, max, json_string_value(j), json_string_length(j), NULL, &len,
	                      NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return false;
	while (zeros < len && to[zeros] == 0)
		zeros++;
	memmove(to, to + zeros, len - zeros);
	*ret_len = len - zeros;
	return true;
}

static why_t check_rsa(const json_t *o, struct key *k)
{
	unsigned char n[NUMBER_MAX], e[8];
	size_t n_len, e_len, bits;

	if (json_member(o, "d"))
		return "is a private key: give the server the public one only";
	if (!number_member(o, "n", n, sizeof n, &n_len) || n_len == 0)
		return "has no usable n (its modulus)";
	if (!number_member(o, "e", e, sizeof e, &e_len) || e_len == 0 || !(e[e_len - 1] & 1) ||
	    (e_len == 1 && e[0] == 1))
		return "has no usable e (its exponent)";
	bits = n_len * 8 - (size_t)(__builtin_clz(n[0]) - 24);
	if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
		return "must have 2048 to 8192 bits: make another";
	k->alg = JWT_RS256;
	k->signature = n_len;
	return NULL;
}

static why_t check_ec(const json_t *o, struct key *k)
{
	const char *crv = text_member(o, "crv");

	if (json_member(o, "d"))
		return "is a private key: give the server the public one only";
	if (!crv || strcmp(crv, "P-256") != 0)
		return "is not on the curve P-256, which ES256 needs";
	k->alg = JWT_ES256;
	k->signature = 64;
	return NULL;
}

static why_t take_oct(const json_t *o, struct key *k)
{
	unsigned char bytes[1024];
	const json_t *j = json_member(o, "k");
	size_t len;

	if (!json_is_string(j) ||
	    sodium_base642bin(bytes, sizeof bytes, json_string_value(j), json_string_length(j),
	                      NULL, &len, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return "has no usable k (its secret, as base64url)";
	if (len >= AUTH_SECRET_MIN)
		k->secret[0] = secret_new(bytes, len);
	sodium_memzero(bytes, sizeof bytes);
	if (!k->secret[0])
		return "must have a secret of at least 32 bytes (256 bits): make a longer one";
	k->secrets = 1;
	k->alg = JWT_HS256;
	k->signature = 32;
	return NULL;
}

/* Whether the key may be used to verify signatures (RFC 7517, sections 4.2 to 4.4). */
static bool is_for_verifying(const json_t *o, enum jwt_alg alg)
{
	const json_t *use = json_member(o, "use"), *ops = json_member(o, "key_ops");
	const json_t *its = json_member(o, "alg");

	if (use && (!json_is_string(use) || strcmp(json_string_value(use), "sig") != 0))
		return false;
	if (its && (!json_is_string(its) || strcmp(json_string_value(its), alg_name[alg]) != 0))
		return false;
	if (!ops)
		return true;
	for (size_t i = 0; i < json_array_size(ops); i++) {
		const char *op = json_string_value(json_array_get(ops, i));

		if (op && strcmp(op, "verify") == 0)
			return true;
	}
	return false;
}

static why_t take_public(const json_t *o, struct key *k)
{
	_cleanup_free_ char *text = json_dumps(o, JSON_COMPACT);
	cjose_err err;

	k->jwk = text ? cjose_jwk_import(text, strlen(text), &err) : NULL;
	ERR_clear_error();
	return k->jwk ? NULL : "is not a sound public key";
}

static why_t take_kid(const json_t *o, struct key *k)
{
	const json_t *kid = json_member(o, "kid");

	if (!kid)
		return NULL;
	if (!json_is_string(kid) || json_string_length(kid) == 0 ||
	    json_string_length(kid) > IDENTITY_SUBJECT_MAX)
		return "has no usable kid (1 to 255 bytes)";
	k->kid = xstrdup(json_string_value(kid));
	return NULL;
}

/* `*ret_foreign`: it is sound as far as one can tell, but nothing for us. */
static why_t take_jwk(const json_t *o, const bool accepts[JWT_ALGS], struct key *k,
                      bool *ret_foreign)
{
	const char *kty = text_member(o, "kty");
	why_t why;

	*ret_foreign = true;
	if (!kty)
		why = "has no kty (its type)";
	else if (strcmp(kty, "RSA") == 0)
		why = check_rsa(o, k);
	else if (strcmp(kty, "EC") == 0)
		why = check_ec(o, k);
	else if (strcmp(kty, "oct") == 0)
		why = take_oct(o, k);
	else
		why = "has a kty that is none of RSA, EC and oct";
	if (why)
		return why;
	if (!is_for_verifying(o, k->alg))
		return "is not meant for verifying signatures of HS256, RS256 or ES256";
	if (!accepts[k->alg])
		return "fits none of the algorithms listed in [auth] algorithms";
	*ret_foreign = false;
	if (k->alg != JWT_HS256)
		why = take_public(o, k);
	return why ? why : take_kid(o, k);
}

/* ---- filling the set ----------------------------------------------------------------- */

/* Takes over what is in `k`. */
static bool add(struct keyset *ks, struct key *k, const char *option, const char *file,
                struct errors *errs)
{
	bool ok = false;

	for (size_t i = 0; k->kid && i < ks->count; i++)
		if (ks->key[i].alg == k->alg && has_kid(&ks->key[i], k->kid)) {
			errors_add(errs, NULL, 0,
			           "[auth] %s: %s: there is another %s key with the kid `%s`: "
			           "remove one",
			           option, file, alg_name[k->alg], k->kid);
			goto out;
		}
	if (ks->count == AUTH_KEYS_MAX) {
		errors_add(errs, NULL, 0, "[auth] %s: %s: there are more than %d keys: remove some",
		           option, file, AUTH_KEYS_MAX);
		goto out;
	}
	ks->key[ks->count++] = *k;
	*k = (struct key){.kid = NULL};
	ok = true;
out:
	key_done(k);
	return ok;
}

bool keyset_add_secrets(struct keyset *ks, struct secret *const *secret, size_t n,
                        const char *option, struct errors *errs)
{
	struct key k = {.alg = JWT_HS256, .signature = 32, .secrets = n};

	ALWAYS(n > 0 && n <= AUTH_SECRETS_MAX);
	for (size_t i = 0; i < n; i++)
		k.secret[i] = secret_ref(secret[i]);
	return add(ks, &k, option, "", errs);
}

bool keyset_add_file(struct keyset *ks, const char *kid, const char *file,
                     const struct secret *text, const char *option, struct errors *errs)
{
	_cleanup_json_ json_t *o = NULL;
	struct key k = {.kid = NULL};
	why_t why = NULL;
	bool foreign;

	if (pem_is_like(text))
		o = pem_to_jwk(text, &why);
	else
		o = json_object_parse(secret_bytes(text), secret_len(text), JSON_DEPTH_MAX);
	if (!o && !why)
		why = "is neither a PEM public key (-----BEGIN PUBLIC KEY-----) nor a JWK";
	if (o && json_member(o, "keys"))
		why = "is a set of keys: name it in [auth] jwks_file";
	if (!why)
		why = take_jwk(o, ks->accepts, &k, &foreign);
	if (!why && kid && k.kid && strcmp(kid, k.kid) != 0)
		why = "has another kid than is written before its path: remove that one";
	if (why) {
		errors_add(errs, NULL, 0, "[auth] %s: %s %s", option, file, why);
		key_done(&k);
		return false;
	}
	if (kid && !k.kid)
		k.kid = xstrdup(kid);
	return add(ks, &k, option, file, errs);
}

/* A set is somebody else's and holds what it likes; what is private in it is told, not ignored. */
static bool add_member(struct keyset *ks, const json_t *o, const char *file, size_t i,
                       const char *option, struct errors *errs)
{
	struct key k = {.kid = NULL};
	bool foreign;
	why_t why = json_is_object(o) ? take_jwk(o, ks->accepts, &k, &foreign) : "is not an object";

	if (!why)
		return add(ks, &k, option, file, errs);
	key_done(&k);
	if (json_is_object(o) && foreign && !json_member(o, "d"))
		return true;
	errors_add(errs, NULL, 0, "[auth] %s: %s: key %zu %s", option, file, i + 1, why);
	return false;
}

bool keyset_add_jwks(struct keyset *ks, const char *file, const struct secret *text,
                     const char *option, struct errors *errs)
{
	_cleanup_json_ json_t *o =
	    json_object_parse(secret_bytes(text), secret_len(text), JSON_DEPTH_MAX);
	const json_t *keys = o ? json_member(o, "keys") : NULL;
	size_t before = ks->count;
	bool ok = true;

	if (!json_is_array(keys)) {
		errors_add(errs, NULL, 0,
		           "[auth] %s: %s is not a set of keys: it must be a JSON object with an "
		           "array `keys`",
		           option, file);
		return false;
	}
	for (size_t i = 0; i < json_array_size(keys); i++)
		ok = add_member(ks, json_array_get(keys, i), file, i, option, errs) && ok;
	if (ok && ks->count == before) {
		errors_add(
		    errs, NULL, 0,
		    "[auth] %s: %s has no key for the algorithms listed in [auth] algorithms",
		    option, file);
		return false;
	}
	return ok;
}
