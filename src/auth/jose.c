#include "jose.h"

#include <sodium.h>

enum { HEADER_MAX = 2048, HEADER_DEPTH_MAX = 4 };

json_t *jose_header(const struct compact_part *part)
{
	static const char *const refused[] = {"crit", "b64", "zip"};
	unsigned char text[HEADER_MAX];
	json_t *h;

	if (part->bytes == 0 || part->bytes > HEADER_MAX)
		return NULL;
	compact_decode(part, text);
	h = json_object_parse(text, part->bytes, HEADER_DEPTH_MAX);
	for (size_t i = 0; h && i < ELEMENTSOF(refused); i++) {
		if (!json_member(h, refused[i]))
			continue;
		json_decref(h);
		h = NULL;
	}
	return h;
}

cjose_jwk_t *jose_key_new(const struct secret *s)
{
	cjose_err err;

	return cjose_jwk_create_oct_spec(secret_bytes(s), secret_len(s), &err);
}

void jose_key_release(cjose_jwk_t *k, const struct secret *s)
{
	cjose_err err;
	void *bytes = k ? cjose_jwk_get_keydata(k, &err) : NULL;

	/* cjose frees the bytes as they are. */
	if (bytes)
		sodium_memzero(bytes, secret_len(s));
	cjose_jwk_release(k);
}
