/*
 * apikey: static keys, `pv_ID_SECRET`, as text and as what is stored of them.
 *
 * ID is 12 characters of a-z and 2-7, public: it names the key in lists, logs and revocations.
 * SECRET is 256 random bits as 43 characters of 0-9, A-Z, a-z. Stored is the SHA-256 of the whole
 * text: with 256 random bits there is nothing to guess, so a slow hash would protect nothing.
 *
 * Pure functions but for apikey_generate, which asks the system for randomness; any thread.
 */
#ifndef PROVOST_APIKEY_H
#define PROVOST_APIKEY_H

#include "provost/strlist.h"

enum {
	APIKEY_ID_LEN = 12,
	APIKEY_SECRET_LEN = 43,
	APIKEY_LEN = 3 + APIKEY_ID_LEN + 1 + APIKEY_SECRET_LEN,
	APIKEY_DIGEST_LEN = 32,
	APIKEY_DIGEST_TEXT_LEN = 2 * APIKEY_DIGEST_LEN,
	APIKEYS_MAX = 16384,
};

/* What is stored of a key. */
struct apikey {
	char id[APIKEY_ID_LEN + 1];
	unsigned char digest[APIKEY_DIGEST_LEN];
	char *subject;
	struct strlist roles;
	int64_t created_s;
	int64_t expires_s; /* 0: never */
	bool revoked;
};

/* A new key's text, to be shown once and wiped (apikey_wipe), with `id` and `digest` of `k`; the
 * rest of `k` is left alone. */
void apikey_generate(struct apikey *k, char text[APIKEY_LEN + 1]);
void apikey_wipe(char text[APIKEY_LEN + 1]);

/* Frees what is inside. */
void apikey_done(struct apikey *k);

/* Whether it begins as keys do: then it is a key, or nothing. */
bool apikey_is_like(const char *text, size_t n);
/* The id, when `text` has the form of a key; -EINVAL. */
int apikey_parse(const char *text, size_t n, char ret_id[APIKEY_ID_LEN + 1]) _must_check_;
bool apikey_id_valid(const char *id, size_t n);

/* SHA-256 of a key's text; -ENOMEM. */
int apikey_digest(const char *text, size_t n, unsigned char ret[APIKEY_DIGEST_LEN]) _must_check_;
/* The digest as 64 hexadecimal digits, as sha256sum prints it, and back; -EINVAL. */
void apikey_digest_format(const unsigned char digest[APIKEY_DIGEST_LEN],
                          char out[APIKEY_DIGEST_TEXT_LEN + 1]);
int apikey_digest_parse(const char *text, size_t n,
                        unsigned char ret[APIKEY_DIGEST_LEN]) _must_check_;

#endif
