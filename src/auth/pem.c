#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>

#include "keyset.h"

enum { NUMBER_MAX = 2048 }; /* bytes; what is too large is refused later, with its reason */

static bool find_text(const struct secret *s, const char *what)
{
	return memmem(secret_bytes(s), secret_len(s), what, strlen(what)) != NULL;
}

bool pem_is_like(const struct secret *text)
{
	return find_text(text, "-----BEGIN ");
}

/* A number of the key as base64url; of `width` bytes, or as many as it has. */
static json_t *number(const EVP_PKEY *key, const char *name, int width)
{
	unsigned char bytes[NUMBER_MAX];
	char text[NUMBER_MAX * 2];
	BIGNUM *n = NULL;
	int len = -1;

	if (EVP_PKEY_get_bn_param(key, name, &n) != 1)
		return NULL;
	if (width == 0)
		width = BN_num_bytes(n);
	if (width <= NUMBER_MAX)
		len = BN_bn2binpad(n, bytes, width);
	BN_free(n);
	if (len <= 0)
		return NULL;
	sodium_bin2base64(text, sizeof text, bytes, (size_t)len,
	                  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return json_string(text);
}

static json_t *rsa_to_jwk(const EVP_PKEY *key)
{
	/* json_pack answers NULL, and releases the other, where a number is missing. */
	return json_pack("{s:s, s:o, s:o}", "kty", "RSA", "n",
	                 number(key, OSSL_PKEY_PARAM_RSA_N, 0), "e",
	                 number(key, OSSL_PKEY_PARAM_RSA_E, 0));
}

static json_t *ec_to_jwk(const EVP_PKEY *key)
{
	char group[64] = "";
	size_t len;

	EVP_PKEY_get_group_name(key, group, sizeof group, &len);
	if (strcmp(group, "prime256v1") != 0 && strcmp(group, "P-256") != 0)
		return json_pack("{s:s, s:s}", "kty", "EC", "crv", group);
	return json_pack("{s:s, s:s, s:o, s:o}", "kty", "EC", "crv", "P-256", "x",
	                 number(key, OSSL_PKEY_PARAM_EC_PUB_X, 32), "y",
	                 number(key, OSSL_PKEY_PARAM_EC_PUB_Y, 32));
}

static EVP_PKEY *read_public(const struct secret *pem)
{
	BIO *bio = BIO_new_mem_buf(secret_bytes(pem), (int)secret_len(pem));
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

json_t *pem_to_jwk(const struct secret *pem, const char **why)
{
	EVP_PKEY *key;
	json_t *jwk = NULL;

	if (find_text(pem, "PRIVATE KEY-----")) {
		*why = "is a private key: give the server the public one only "
		       "(openssl pkey -in FILE -pubout)";
		return NULL;
	}
	if (find_text(pem, "-----BEGIN CERTIFICATE-----")) {
		*why = "is a certificate: take the public key out of it "
		       "(openssl x509 -in FILE -noout -pubkey)";
		return NULL;
	}
	key = read_public(pem);
	if (key && EVP_PKEY_is_a(key, "RSA"))
		jwk = rsa_to_jwk(key);
	else if (key && EVP_PKEY_is_a(key, "EC"))
		jwk = ec_to_jwk(key);
	EVP_PKEY_free(key);
	if (!jwk)
		*why = "is not a public key that RS256 or ES256 can use "
		       "(-----BEGIN PUBLIC KEY-----, RSA or EC P-256)";
	return jwk;
}
