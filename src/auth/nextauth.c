#include "nextauth.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sodium.h>

#include "jose.h"
#include "refuse.h"

enum {
	KEY_LEN = 32,
	IV_LEN = 12,  /* RFC 7518, section 5.3 */
	TAG_LEN = 16, /* likewise; a library that takes a shorter one can be made to guess */
};

/* ---- the key ------------------------------------------------------------------------- */

static bool derive(const struct secret *s, unsigned char key[KEY_LEN])
{
	char info[] = "NextAuth.js Generated Encryption Key", sha256[] = "SHA256";
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool ok;
	/* No salt is the same as an empty one (RFC 5869, section 2.2). */
	OSSL_PARAM params[] = {
	    OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, sha256, 0),
	    OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
	                                      (void *)(uintptr_t)secret_bytes(s), secret_len(s)),
	    OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info - 1),
	    OSSL_PARAM_construct_end(),
	};

	ok = ctx && EVP_KDF_derive(ctx, key, KEY_LEN, params) == 1;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	ERR_clear_error();
	return ok;
}

struct secret *nextauth_key(const struct secret *s)
{
	unsigned char key[KEY_LEN];
	struct secret *k = derive(s, key) ? secret_new(key, sizeof key) : NULL;

	sodium_memzero(key, sizeof key);
	return k;
}

/* ---- opening ------------------------------------------------------------------------- */

static bool is_text(const json_t *j, const char *s)
{
	return json_is_string(j) && strcmp(json_string_value(j), s) == 0;
}

/* Before cjose sees it: so none of its other algorithms can be reached. */
static bool is_form_right(const struct compact_part part[COMPACT_PARTS_MAX])
{
	_cleanup_json_ json_t *h = jose_header(&part[0]);

	return h && is_text(json_member(h, "alg"), "dir") &&
	       is_text(json_member(h, "enc"), "A256GCM") && part[1].len == 0 &&
	       part[2].bytes == IV_LEN && part[3].bytes > 0 && part[4].bytes == TAG_LEN;
}

static uint8_t *open_with(const struct secret *key, const char *token, size_t n, size_t *ret_len)
{
	cjose_err err;
	cjose_jwk_t *jwk = jose_key_new(key);
	/* Anew for each key: it remembers the key that it was decrypted with. */
	cjose_jwe_t *jwe = jwk ? cjose_jwe_import(token, n, &err) : NULL;
	uint8_t *text = jwe ? cjose_jwe_decrypt(jwe, jwk, ret_len, &err) : NULL;

	cjose_jwe_release(jwe);
	jose_key_release(jwk, key);
	ERR_clear_error();
	return text;
}

int nextauth_identify(struct secret *const *key, size_t keys, const struct claim_rules *rules,
                      const char *token, size_t n, int64_t now_s, struct identity **ret,
                      const char **reason)
{
	struct compact_part part[COMPACT_PARTS_MAX];
	uint8_t *text = NULL;
	size_t len = 0;
	int r;

	if (compact_split(token, n, part) != 5 || !is_form_right(part))
		return refuse(reason, -EBADMSG, "the session cookie is not one of NextAuth 4");
	for (size_t i = 0; !text && i < keys; i++)
		text = open_with(key[i], token, n, &len);
	if (!text)
		return refuse(reason, -EKEYREJECTED, "the session cookie cannot be opened");
	r = claims_identify(rules, text, len, now_s, ret, reason);
	sodium_memzero(text, len);
	free(text);
	return r;
}
