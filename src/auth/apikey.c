#include "provost/apikey.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "digest.h"

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/* Divides the big-endian number in place; the remainder. */
static unsigned divide(unsigned char number[32], unsigned by)
{
	unsigned rest = 0;

	for (size_t i = 0; i < 32; i++) {
		rest = rest << 8 | number[i];
		number[i] = (unsigned char)(rest / by);
		rest %= by;
	}
	return rest;
}

/* 62^43 is more than 2^256, so every value has its own 43 digits. */
static void put_secret(char *to)
{
	unsigned char number[32];

	randombytes_buf(number, sizeof number);
	for (size_t i = APIKEY_SECRET_LEN; i-- > 0;)
		to[i] = base62[divide(number, 62)];
	sodium_memzero(number, sizeof number);
}

void apikey_generate(struct apikey *k, char text[APIKEY_LEN + 1])
{
	unsigned char id[APIKEY_ID_LEN];

	ALWAYS(sodium_init() >= 0);
	randombytes_buf(id, sizeof id);
	for (size_t i = 0; i < APIKEY_ID_LEN; i++)
		k->id[i] = base32[id[i] % 32];
	k->id[APIKEY_ID_LEN] = '\0';
	memcpy(text, "pv_", 3);
	memcpy(text + 3, k->id, APIKEY_ID_LEN);
	text[3 + APIKEY_ID_LEN] = '_';
	put_secret(text + 3 + APIKEY_ID_LEN + 1);
	text[APIKEY_LEN] = '\0';
	ALWAYS(apikey_digest(text, APIKEY_LEN, k->digest) == 0);
}

void apikey_wipe(char text[APIKEY_LEN + 1])
{
	sodium_memzero(text, APIKEY_LEN + 1);
}

void apikey_done(struct apikey *k)
{
	free(k->subject);
	k->subject = NULL;
	strlist_done(&k->roles);
}

bool apikey_is_like(const char *text, size_t n)
{
	return n >= 3 && memcmp(text, "pv_", 3) == 0;
}

static bool consists_of(const char *s, size_t n, const char *of)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] == '\0' || !strchr(of, s[i]))
			return false;
	return true;
}

bool apikey_id_valid(const char *id, size_t n)
{
	return n == APIKEY_ID_LEN && consists_of(id, n, base32);
}

int apikey_parse(const char *text, size_t n, char ret_id[APIKEY_ID_LEN + 1])
{
	const char *id = text + 3;

	if (n != APIKEY_LEN || !apikey_is_like(text, n) || !apikey_id_valid(id, APIKEY_ID_LEN) ||
	    id[APIKEY_ID_LEN] != '_' ||
	    !consists_of(id + APIKEY_ID_LEN + 1, APIKEY_SECRET_LEN, base62))
		return -EINVAL;
	memcpy(ret_id, id, APIKEY_ID_LEN);
	ret_id[APIKEY_ID_LEN] = '\0';
	return 0;
}

int apikey_digest(const char *text, size_t n, unsigned char ret[APIKEY_DIGEST_LEN])
{
	return digest_sha256(-1, text, n, ret);
}

void apikey_digest_format(const unsigned char digest[APIKEY_DIGEST_LEN],
                          char out[APIKEY_DIGEST_TEXT_LEN + 1])
{
	sodium_bin2hex(out, APIKEY_DIGEST_TEXT_LEN + 1, digest, APIKEY_DIGEST_LEN);
}

int apikey_digest_parse(const char *text, size_t n, unsigned char ret[APIKEY_DIGEST_LEN])
{
	unsigned char digest[APIKEY_DIGEST_LEN];
	size_t len;

	if (n != APIKEY_DIGEST_TEXT_LEN ||
	    sodium_hex2bin(digest, sizeof digest, text, n, NULL, &len, NULL) != 0 ||
	    len != APIKEY_DIGEST_LEN)
		return -EINVAL;
	memcpy(ret, digest, sizeof digest);
	return 0;
}
