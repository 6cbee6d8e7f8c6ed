/*
 * auth_bench: what it costs to know who is calling, in nanoseconds, one thread.
 *
 * Cases take turns, ROUNDS times; printed are the median of the rounds, and the least and the most.
 * `first` is a token that nobody has seen (each is used once per round, then forgotten), `known`
 * one whose identity is remembered, `again` the next request of the same connection.
 */
#include <cjose/cjose.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

#include "provost/auth.h"

enum { NOW = 1800000000, TOKENS = 400, ROUNDS = 11, REPEATS = 200000 };

enum kind { HS256, RS256, ES256, COOKIE, API_KEY, KINDS };
static const char *const kind_name[KINDS] = {"HS256", "RS256", "ES256", "cookie", "API key"};

enum how { FIRST, KNOWN, AGAIN, HOWS };
static const char *const how_name[HOWS] = {"first", "known", "again"};

static struct auth *a;
static struct auth_options options;
static char *field[KINDS][TOKENS];
static double result[KINDS][HOWS][ROUNDS];

/* ---- tokens -------------------------------------------------------------------------- */

static char *claims(int n)
{
	return xasprintf(
	    "{\"sub\":\"user-%d\",\"name\":\"Somebody Or Other\",\"email\":"
	    "\"somebody.or.other@example.org\",\"role\":\"admin\",\"roles\":[\"admin\"],"
	    "\"iat\":1799999000,\"exp\":1800086400,"
	    "\"jti\":\"7d0c6c1e-0000-4000-8000-%012d\"}",
	    n % 50, n);
}

static cjose_header_t *header(const char *alg, const char *enc)
{
	cjose_err err;
	cjose_header_t *h = cjose_header_new(&err);

	ALWAYS(cjose_header_set(h, "alg", alg, &err));
	ALWAYS(!enc || cjose_header_set(h, "enc", enc, &err));
	return h;
}

static char *sign(const cjose_jwk_t *key, const char *alg, const char *text)
{
	cjose_err err;
	cjose_header_t *h = header(alg, NULL);
	cjose_jws_t *jws = cjose_jws_sign(key, h, (const uint8_t *)text, strlen(text), &err);
	const char *token;
	char *f;

	ALWAYS(jws && cjose_jws_export(jws, &token, &err));
	f = xasprintf("Bearer %s", token);
	cjose_jws_release(jws);
	cjose_header_release(h);
	return f;
}

static char *seal(const cjose_jwk_t *key, const char *text)
{
	cjose_err err;
	cjose_header_t *h = header("dir", "A256GCM");
	cjose_jwe_t *jwe = cjose_jwe_encrypt(key, h, (const uint8_t *)text, strlen(text), &err);
	char *token = jwe ? cjose_jwe_export(jwe, &err) : NULL, *f;

	ALWAYS(token != NULL);
	f = xasprintf("next-auth.csrf-token=0123456789abcdef0123456789abcdef; theme=dark; "
	              "next-auth.session-token=%s",
	              token);
	free(token);
	cjose_jwe_release(jwe);
	cjose_header_release(h);
	return f;
}

static void next_key(const char *secret, unsigned char key[32])
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	char digest[] = "SHA256", info[] = "NextAuth.js Generated Encryption Key";
	char text[128];
	OSSL_PARAM params[] = {
	    OSSL_PARAM_construct_utf8_string("digest", digest, 0),
	    OSSL_PARAM_construct_octet_string("key", text, strlen(secret)),
	    OSSL_PARAM_construct_octet_string("info", info, sizeof info - 1),
	    OSSL_PARAM_construct_end(),
	};

	strcpy(text, secret);
	ALWAYS(EVP_KDF_derive(ctx, key, 32, params) == 1);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
}

/* ---- settings ------------------------------------------------------------------------ */

static char jwks_path[] = "/tmp/provost-auth-bench-XXXXXX";

static void write_jwks(const cjose_jwk_t *rsa, const cjose_jwk_t *ec)
{
	cjose_err err;
	FILE *f = fdopen(mkstemp(jwks_path), "w");
	char *one = cjose_jwk_to_json(rsa, false, &err), *two = cjose_jwk_to_json(ec, false, &err);

	fprintf(f, "{\"keys\":[%s,%s]}", one, two);
	fclose(f);
	free(one);
	free(two);
}

static void configure(void)
{
	struct errors *errs = errors_new();

	if (auth_configure(a, &options, errs, NULL) < 0) {
		errors_print(errs, stderr);
		exit(EXIT_FAILURE);
	}
	errors_free(&errs);
}

static void add_api_key(void)
{
	struct errors *errs = errors_new();
	struct apikey k = {.subject = xstrdup("bench")};
	char text[APIKEY_LEN + 1];

	apikey_generate(&k, text);
	strlist_add(&k.roles, "admin", 5);
	ALWAYS(auth_keys_set(a, &k, 1, errs) == 0);
	for (int i = 0; i < TOKENS; i++)
		field[API_KEY][i] = xasprintf("Bearer %s", text);
	apikey_done(&k);
	errors_free(&errs);
}

static void prepare(void)
{
	static const char secret[] = "0123456789abcdef0123456789abcdef";
	static const uint8_t e[] = {1, 0, 1};
	cjose_err err;
	unsigned char next[32];
	cjose_jwk_t *hs, *rsa = cjose_jwk_create_RSA_random(2048, e, sizeof e, &err);
	cjose_jwk_t *ec = cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, &err), *direct;

	next_key(secret, next);
	hs = cjose_jwk_create_oct_spec((const uint8_t *)secret, sizeof secret - 1, &err);
	direct = cjose_jwk_create_oct_spec(next, sizeof next, &err);
	for (int i = 0; i < TOKENS; i++) {
		char *text = claims(i);

		field[HS256][i] = sign(hs, "HS256", text);
		field[RS256][i] = sign(rsa, "RS256", text);
		field[ES256][i] = sign(ec, "ES256", text);
		field[COOKIE][i] = seal(direct, text);
		free(text);
	}
	write_jwks(rsa, ec);
	cjose_jwk_release(hs);
	cjose_jwk_release(rsa);
	cjose_jwk_release(ec);
	cjose_jwk_release(direct);

	a = auth_new();
	auth_options_init(&options);
	strlist_add(&options.algorithms, "HS256", 5);
	strlist_add(&options.algorithms, "RS256", 5);
	strlist_add(&options.algorithms, "ES256", 5);
	options.jwt_secret.given = secret_new(secret, sizeof secret - 1);
	options.nextauth_secret.given = secret_new(secret, sizeof secret - 1);
	options.jwks_file = xstrdup(jwks_path);
	options.issuer = xstrdup("*");
	strlist_add(&options.audience, "*", 1);
	configure();
	add_api_key();
}

/* ---- measuring ----------------------------------------------------------------------- */

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct credentials credentials(enum kind k, int i)
{
	struct auth_field f = {field[k][i], strlen(field[k][i])};

	return k == COOKIE ? (struct credentials){.cookie = f}
	                   : (struct credentials){.authorization = f};
}

static void ask(const struct credentials *c)
{
	struct identity *i = NULL;
	const char *reason;

	ALWAYS(auth_identify(a, c, NOW, &i, &reason) == 0);
	identity_unref(&i);
}

static double first(enum kind k)
{
	struct credentials c[TOKENS];
	double t;

	for (int i = 0; i < TOKENS; i++)
		c[i] = credentials(k, i);
	configure(); /* forgets */
	t = now_ns();
	for (int i = 0; i < TOKENS; i++)
		ask(&c[i]);
	return (now_ns() - t) / TOKENS;
}

static double known(enum kind k)
{
	struct credentials c[16];
	double t;

	for (int i = 0; i < 16; i++) {
		c[i] = credentials(k, i);
		ask(&c[i]);
	}
	t = now_ns();
	for (int i = 0; i < REPEATS; i++)
		ask(&c[i % 16]);
	return (now_ns() - t) / REPEATS;
}

static double again(enum kind k)
{
	struct credentials c = credentials(k, 0);
	struct auth_memory m = {0};
	struct identity *i;
	const char *reason;
	double t = now_ns();

	for (int n = 0; n < REPEATS; n++)
		ALWAYS(auth_identify_again(a, &m, &c, NOW, &i, &reason) == 0);
	t = (now_ns() - t) / REPEATS;
	auth_memory_done(&m);
	return t;
}

static int compare(const void *x, const void *y)
{
	double p = *(const double *)x, q = *(const double *)y;

	return (p > q) - (p < q);
}

int main(void)
{
	static double (*const run[HOWS])(enum kind) = {first, known, again};

	prepare();
	for (int r = 0; r < ROUNDS; r++)
		for (int k = 0; k < KINDS; k++)
			for (int h = 0; h < HOWS; h++)
				result[k][h][r] = run[h]((enum kind)k);
	unlink(jwks_path);
	printf("%-8s %-6s %6s %10s %10s %10s\n", "", "", "bytes", "ns", "least", "most");
	for (int k = 0; k < KINDS; k++)
		for (int h = 0; h < HOWS; h++) {
			double *of = result[k][h];

			qsort(of, ROUNDS, sizeof *of, compare);
			printf("%-8s %-6s %6zu %10.0f %10.0f %10.0f\n", kind_name[k], how_name[h],
			       strlen(field[k][0]), of[ROUNDS / 2], of[0], of[ROUNDS - 1]);
		}
	for (int k = 0; k < KINDS; k++)
		for (int i = 0; i < TOKENS; i++)
			free(field[k][i]);
	auth_options_done(&options);
	auth_free(&a);
	return 0;
}
