/*
 * Any Cookie field: a session is found or not, and identifies nobody, for there is nobody who could
 * have made one. A field that begins with `!` stands for a session over the rest, the claims, with
 * the right key: what lies behind the decryption is reached.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <string.h>

#include "../../src/auth/cookie.h"
#include "../../src/auth/nextauth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW = 1800000000 };

static const char text[] = "the front end's secret, as long as need be";
static struct secret *key;

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
	o.nextauth_secret.given = secret_new(text, sizeof text - 1);
	key = nextauth_key(o.nextauth_secret.given);
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

static char *seal(const uint8_t *claims, size_t n)
{
	static const unsigned char iv[12];
	static const char name[] = "next-auth.session-token=",
	                  header[] = "{\"alg\":\"dir\",\"enc\":\"A256GCM\"}";
	unsigned char *sealed = xcalloc(1, n + 16), tag[16];
	char *field = xcalloc(1, n * 2 + 512), *at = stpcpy(field, name);
	EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
	int len;

	at = encode(at, header, sizeof header - 1);
	ALWAYS(EVP_EncryptInit_ex(x, EVP_aes_256_gcm(), NULL, secret_bytes(key), iv) == 1);
	ALWAYS(EVP_EncryptUpdate(x, NULL, &len, (unsigned char *)field + sizeof name - 1,
	                         (int)strlen(field + sizeof name - 1)) == 1);
	ALWAYS(EVP_EncryptUpdate(x, sealed, &len, claims, (int)n) == 1);
	ALWAYS(EVP_EncryptFinal_ex(x, sealed + len, &len) == 1);
	ALWAYS(EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, 16, tag) == 1);
	EVP_CIPHER_CTX_free(x);
	at = stpcpy(at, "..");
	at = encode(at, iv, sizeof iv);
	*at++ = '.';
	at = encode(at, sealed, n);
	*at++ = '.';
	encode(at, tag, sizeof tag);
	free(sealed);
	return field;
}

static void find_only(const char *field, size_t n)
{
	char token[AUTH_TOKEN_MAX];
	const char *reason = NULL;
	size_t len = 0;
	int r = cookie_session(field, n, token, &len, &reason);

	ALWAYS(r == 0 || (reason && (r == -ENOKEY || r == -EBADMSG || r == -EMSGSIZE)));
	ALWAYS(r < 0 || len <= AUTH_TOKEN_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct auth *a = made();
	bool sealed = size > 0 && data[0] == '!';
	char *field =
	    sealed ? seal(data + 1, size - 1) : memcpy(xcalloc(size ? size : 1, 1), data, size);
	struct credentials c = {.cookie = {field, sealed ? strlen(field) : size}};
	struct auth_memory m = {0};

	find_only(c.cookie.data, c.cookie.len);
	for (int n = 0; n < 2; n++) {
		struct identity *i = NULL;
		const char *reason = NULL;
		int r = auth_identify_again(a, &m, &c, NOW, &i, &reason);

		ALWAYS((r == 0) == (i != NULL) && r != -ENOMEM);
		ALWAYS(r < 0 || (sealed && i->from_cookie && i->expires_s > NOW));
		ALWAYS(r == 0 || reason);
	}
	auth_memory_done(&m);
	free(field);
	return 0;
}
