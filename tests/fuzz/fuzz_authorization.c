/*
 * Any Authorization field: it identifies somebody only if it is one of the tokens that were made
 * here, else it is refused with a reason fit for WWW-Authenticate. A field that begins with `!`
 * stands for a token over the rest, `header \n claims`, with a good signature, so that what lies
 * behind the signature is reached.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sodium.h>
#include <string.h>

#include "provost/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW = 1800000000 };

static const char secret[] = "0123456789abcdef0123456789abcdef";

static struct auth *made(void)
{
	static struct auth *a;
	struct errors *errs;
	struct auth_options o;

	if (a)
		return a;
	a = auth_new();
	errs = errors_new();
	auth_options_init(&o);
	strlist_add(&o.algorithms, "HS256", 5);
	o.jwt_secret.given = secret_new(secret, sizeof secret - 1);
	o.issuer = xstrdup("*");
	strlist_add(&o.audience, "*", 1);
	free(o.jwt_claims.roles);
	o.jwt_claims.roles = xstrdup("a.roles");
	ALWAYS(auth_configure(a, &o, errs, NULL) == 0);
	auth_options_done(&o);
	errors_free(&errs);
	return a;
}

static char *encode(char *to, const void *p, size_t n)
{
	sodium_bin2base64(to, n * 2 + 8, p, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return to + strlen(to);
}

static char *sign(const char *s, size_t n)
{
	const char *newline = memchr(s, '\n', n);
	size_t header = newline ? (size_t)(newline - s) : n;
	char *text = xcalloc(1, n * 2 + 256), *at = text;
	unsigned char mac[32];

	at = stpcpy(at, "Bearer ");
	at = encode(at, s, header);
	*at++ = '.';
	if (newline)
		at = encode(at, newline + 1, n - header - 1);
	HMAC(EVP_sha256(), secret, sizeof secret - 1, (unsigned char *)text + 7,
	     (size_t)(at - text) - 7, mac, NULL);
	*at++ = '.';
	encode(at, mac, sizeof mac);
	return text;
}

static void check(const struct identity *i)
{
	size_t n = strlen(i->subject);

	ALWAYS(n >= 1 && n <= IDENTITY_SUBJECT_MAX && utf8_length(i->subject, n) > 0);
	ALWAYS(i->roles.count <= IDENTITY_ROLES_MAX && i->expires_s > NOW);
	ALWAYS(i->claims[0] == '{' && !i->from_cookie);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct auth *a = made();
	bool is_signed = size > 0 && data[0] == '!';
	/* In memory of its own, so that reading past its end is noticed. */
	char *field = is_signed ? sign((const char *)data + 1, size - 1)
	                        : memcpy(xcalloc(size ? size : 1, 1), data, size);
	struct credentials c = {.authorization = {field, is_signed ? strlen(field) : size}};
	struct auth_memory m = {0};
	char out[AUTH_CHALLENGE_MAX];

	for (int n = 0; n < 2; n++) {
		struct identity *i = NULL;
		const char *reason = NULL;
		int r = auth_identify_again(a, &m, &c, NOW, &i, &reason);

		ALWAYS((r == 0) == (i != NULL) && r != -ENOKEY && r != -ENOMEM);
		ALWAYS(r < 0 || is_signed);
		if (i)
			check(i);
		else
			auth_challenge(r, reason, out);
	}
	auth_memory_done(&m);
	free(field);
	return 0;
}
