/*
 * auth_tokens: what the tests of src/auth share: options, files, tokens of any make. Tokens are
 * made with OpenSSL here, so that what cjose reads was not written by cjose.
 */
#ifndef PROVOST_TESTS_AUTH_TOKENS_H
#define PROVOST_TESTS_AUTH_TOKENS_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#include "../../src/auth/json.h"
#include "provost/auth.h"
#include "provost/buf.h"

#pragma GCC diagnostic ignored "-Wunused-function"

#define ISS    "https://issuer.example.org"
#define AUD    "provost"
#define SECRET "0123456789abcdef0123456789abcdef-test"
#define NEXT   "the front end's secret, as long as need be"

enum { NOW = 1800000000 };

/* ---- text ---------------------------------------------------------------------------- */

static char *b64(const void *p, size_t n)
{
	char *out = xcalloc(1, n * 2 + 8);

	sodium_bin2base64(out, n * 2 + 8, p, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return out;
}

static void add(struct strlist *l, const char *s)
{
	strlist_add(l, s, strlen(s));
}

static void set(char **to, const char *s)
{
	free(*to);
	*to = s ? xstrdup(s) : NULL;
}

/* ---- files --------------------------------------------------------------------------- */

static char scratch[64];

static void remove_scratch(void)
{
	DIR *d = opendir(scratch);

	for (struct dirent *e; d && (e = readdir(d));)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(scratch);
}

static char *scratch_path(const char *name)
{
	if (!*scratch) {
		snprintf(scratch, sizeof scratch, "/tmp/provost-auth-XXXXXX");
		ck_assert_ptr_nonnull(mkdtemp(scratch));
		atexit(remove_scratch);
	}
	return xasprintf("%s/%s", scratch, name);
}

static void write_to(const char *path, const char *text)
{
	_cleanup_free_ char *beside = xasprintf("%s.new", path);
	int fd = open(beside, O_CREAT | O_WRONLY | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	ck_assert_int_eq(rename(beside, path), 0);
}

static char *file_of(const char *name, const char *text)
{
	char *path = scratch_path(name);

	write_to(path, text);
	return path;
}

static json_t *fixture(const char *name)
{
	const char *root = getenv("SOURCE_ROOT");
	_cleanup_free_ char *path = xasprintf("%s/tests/unit/auth/%s", root ? root : ".", name);
	json_t *j = json_load_file(path, 0, NULL);

	ck_assert_msg(j != NULL, "%s", path);
	return j;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_member(o, name));

	ck_assert_msg(s != NULL, "%s", name);
	return s;
}

/* ---- tokens -------------------------------------------------------------------------- */

static char *jwt_signed(const char *header, const char *claims, const void *key, size_t n)
{
	_cleanup_free_ char *h = b64(header, strlen(header));
	_cleanup_free_ char *c = b64(claims, strlen(claims));
	_cleanup_free_ char *text = xasprintf("%s.%s", h, c);
	_cleanup_free_ char *s = NULL;
	unsigned char mac[32];

	HMAC(EVP_sha256(), key, (int)n, (unsigned char *)text, strlen(text), mac, NULL);
	s = b64(mac, sizeof mac);
	return xasprintf("%s.%s", text, s);
}

static char *jwt(const char *header, const char *claims)
{
	return jwt_signed(header, claims, SECRET, strlen(SECRET));
}

#define HS "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define CLAIMS(more)                                                                               \
	"{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"user-1\",\"iat\":1799999000,"          \
	"\"exp\":1800003600" more "}"

static void next_key(const char *secret, unsigned char key[32])
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
	const char *info = "NextAuth.js Generated Encryption Key";
	size_t n = 32;

	ck_assert(
	    EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_CTX_set_hkdf_md(c, EVP_sha256()) == 1 &&
	    EVP_PKEY_CTX_set1_hkdf_salt(c, (const unsigned char *)"", 0) == 1 &&
	    EVP_PKEY_CTX_set1_hkdf_key(c, (const unsigned char *)secret, (int)strlen(secret)) ==
	        1 &&
	    EVP_PKEY_CTX_add1_hkdf_info(c, (const unsigned char *)info, (int)strlen(info)) == 1 &&
	    EVP_PKEY_derive(c, key, &n) == 1);
	EVP_PKEY_CTX_free(c);
}

/* A JWE with the direct key, of any header, tag length and encrypted-key part. */
static char *jwe(const char *secret, const char *header, const char *claims, const char *ek,
                 size_t tag_len)
{
	unsigned char key[32], iv[12], tag[16];
	size_t n = strlen(claims);
	_cleanup_free_ char *h = b64(header, strlen(header));
	_cleanup_free_ unsigned char *text = xcalloc(1, n + 16);
	_cleanup_free_ char *i = NULL, *t = NULL, *c = NULL;
	EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
	int len;

	next_key(secret, key);
	randombytes_buf(iv, sizeof iv);
	ck_assert(EVP_EncryptInit_ex(x, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
	          EVP_EncryptUpdate(x, NULL, &len, (unsigned char *)h, (int)strlen(h)) == 1 &&
	          EVP_EncryptUpdate(x, text, &len, (const unsigned char *)claims, (int)n) == 1 &&
	          EVP_EncryptFinal_ex(x, text + len, &len) == 1 &&
	          EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, 16, tag) == 1);
	EVP_CIPHER_CTX_free(x);
	i = b64(iv, sizeof iv);
	c = b64(text, n);
	t = b64(tag, tag_len);
	return xasprintf("%s.%s.%s.%s.%s", h, ek, i, c, t);
}

#define DIR           "{\"alg\":\"dir\",\"enc\":\"A256GCM\"}"
#define SESSION(more) "{\"sub\":\"user-1\",\"iat\":1799999000,\"exp\":1800003600" more "}"

static char *cookie_named(const char *name, const char *secret, const char *claims)
{
	_cleanup_free_ char *v = jwe(secret, DIR, claims, "", 16);

	return xasprintf("%s=%s", name, v);
}

#define PLAIN_NAME  "next-auth.session-token"
#define SECURE_NAME "__Secure-next-auth.session-token"

/* ---- asking -------------------------------------------------------------------------- */

static struct auth_field field(const char *s)
{
	return (struct auth_field){s, s ? strlen(s) : 0};
}

/* What is told is fit for a quoted string (RFC 6750, section 3) and names nobody's secret. */
static void check_reason(const char *reason)
{
	ck_assert_ptr_nonnull(reason);
	ck_assert_uint_lt(strlen(reason), 100);
	for (const char *s = reason; *s; s++)
		ck_assert(*s >= 0x20 && *s < 0x7f && *s != '"' && *s != '\\');
}

static int ask(struct auth *a, const char *authorization, const char *cookie, int64_t now,
               struct identity **ret)
{
	struct credentials c = {field(authorization), field(cookie)};
	const char *reason = NULL;
	int r;

	*ret = NULL;
	r = auth_identify(a, &c, now, ret, &reason);
	ck_assert((r == 0) == (*ret != NULL));
	if (r < 0)
		check_reason(reason);
	return r;
}

static int bearer_at(struct auth *a, const char *token, int64_t now, struct identity **ret)
{
	_cleanup_free_ char *f = xasprintf("Bearer %s", token);

	return ask(a, f, NULL, now, ret);
}

static int bearer(struct auth *a, const char *token)
{
	_cleanup_identity_ struct identity *i = NULL;

	return bearer_at(a, token, NOW, &i);
}

static int cookie(struct auth *a, const char *f)
{
	_cleanup_identity_ struct identity *i = NULL;

	return ask(a, NULL, f, NOW, &i);
}

/* ---- options ------------------------------------------------------------------------- */

/* HS256 and cookies. */
static void usual(struct auth_options *o)
{
	auth_options_init(o);
	add(&o->algorithms, "HS256");
	o->jwt_secret.given = secret_new(SECRET, strlen(SECRET));
	set(&o->issuer, ISS);
	add(&o->audience, AUD);
	o->nextauth_secret.given = secret_new(NEXT, strlen(NEXT));
}

static void configure(struct auth *a, const struct auth_options *o)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	int r = auth_configure(a, o, errs, NULL);

	ck_assert_msg(r == 0, "%s", errors_text(errs, 0));
	ck_assert_uint_eq(errors_count(errs), 0);
}

static struct auth *usual_auth(void)
{
	struct auth *a = auth_new();
	struct auth_options o;

	usual(&o);
	configure(a, &o);
	auth_options_done(&o);
	return a;
}

/* ---- running ------------------------------------------------------------------------- */

static int run_suite(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
