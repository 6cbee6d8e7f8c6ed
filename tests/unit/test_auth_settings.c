#include <openssl/pem.h>

#include "auth_tokens.h"

/* ---- what is refused ----------------------------------------------------------------- */

static const json_t *jwts;

static char *jwks_with(const char *name, size_t from, const char *member, const char *value)
{
	_cleanup_json_ json_t *all = json_deep_copy(json_member(jwts, "jwks"));
	json_t *keys = json_member(all, "keys"), *k = json_array_get(keys, from);
	_cleanup_free_ char *text = NULL;

	if (value)
		json_object_set_new(k, member, json_string(value));
	else
		json_object_del(k, member);
	text = json_dumps(all, 0);
	return file_of(name, text);
}

static void rs256(struct auth_options *o)
{
	strlist_done(&o->algorithms);
	add(&o->algorithms, "RS256");
	secret_unref(&o->jwt_secret.given);
}

static void key_file(struct auth_options *o, const char *name, const char *text)
{
	_cleanup_free_ char *path = file_of(name, text);

	rs256(o);
	add(&o->key_files, path);
}

static void secret_file(struct auth_secrets *s, const char *name, const char *text)
{
	_cleanup_free_ char *path = file_of(name, text);

	secret_unref(&s->given);
	add(&s->files, path);
}

static void no_algorithm(struct auth_options *o)
{
	add(&o->algorithms, "PS256");
}
static void none_algorithm(struct auth_options *o)
{
	add(&o->algorithms, "none");
}
static void no_issuer(struct auth_options *o)
{
	set(&o->issuer, NULL);
}
static void no_audience(struct auth_options *o)
{
	strlist_done(&o->audience);
}
static void secret_without_alg(struct auth_options *o)
{
	strlist_done(&o->algorithms);
}
static void no_rsa_key(struct auth_options *o)
{
	add(&o->algorithms, "RS256");
}
static void no_secret(struct auth_options *o)
{
	secret_unref(&o->jwt_secret.given);
}
static void short_secret(struct auth_options *o)
{
	secret_unref(&o->jwt_secret.given);
	o->jwt_secret.given = secret_new("0123456789abcdef0123456789abcde\n", 32);
}
static void missing_file(struct auth_options *o)
{
	secret_unref(&o->jwt_secret.given);
	add(&o->jwt_secret.files, "/nowhere/secret");
}
static void folder(struct auth_options *o)
{
	secret_unref(&o->jwt_secret.given);
	add(&o->jwt_secret.files, "/tmp");
}
static void empty_file(struct auth_options *o)
{
	secret_file(&o->jwt_secret, "empty", "");
}
static void two_lines(struct auth_options *o)
{
	secret_file(&o->jwt_secret, "lines", "0123456789abcdef0123456789abcdef\nx\n");
}
static void pem_as_secret(struct auth_options *o)
{
	secret_file(&o->jwt_secret, "pem", text_of(json_member(jwts, "pem"), "rsa"));
}
static void world_writable(struct auth_options *o)
{
	secret_file(&o->jwt_secret, "open", SECRET);
	ck_assert_int_eq(chmod(o->jwt_secret.files.item[0], 0666), 0);
}
static void too_many_secrets(struct auth_options *o)
{
	for (int i = 0; i < AUTH_SECRETS_MAX; i++) {
		_cleanup_free_ char *path = file_of("many", SECRET);

		add(&o->jwt_secret.files, path);
	}
}
static void short_nextauth(struct auth_options *o)
{
	secret_unref(&o->nextauth_secret.given);
	o->nextauth_secret.given = secret_new("secret", 6);
}
static void keys_without_alg(struct auth_options *o)
{
	key_file(o, "rsa.pem", text_of(json_member(jwts, "pem"), "rsa"));
	strlist_done(&o->algorithms);
}
static void small_rsa(struct auth_options *o)
{
	key_file(o, "small.pem", text_of(json_member(jwts, "pem"), "small"));
}
static void wrong_curve(struct auth_options *o)
{
	key_file(o, "p384.pem", text_of(json_member(jwts, "pem"), "p384"));
}
static void key_of_other_alg(struct auth_options *o)
{
	key_file(o, "ec.pem", text_of(json_member(jwts, "pem"), "ec"));
}
static void private_pem(struct auth_options *o)
{
	EVP_PKEY *k = EVP_EC_gen("P-256");
	_cleanup_free_ char *path = scratch_path("private.pem");
	FILE *f = fopen(path, "w");

	ck_assert(PEM_write_PrivateKey(f, k, NULL, NULL, 0, NULL, NULL) == 1);
	fclose(f);
	EVP_PKEY_free(k);
	rs256(o);
	add(&o->key_files, path);
}
static void certificate(struct auth_options *o)
{
	key_file(o, "crt", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
}
static void broken_pem(struct auth_options *o)
{
	key_file(o, "broken", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n");
}
static void no_key_at_all(struct auth_options *o)
{
	key_file(o, "text", "hello");
}
static void set_as_key(struct auth_options *o)
{
	key_file(o, "set", "{\"keys\":[]}");
}
static void other_kty(struct auth_options *o)
{
	key_file(o, "okp", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}");
}
static void key_for_encryption(struct auth_options *o)
{
	_cleanup_free_ char *text =
	    json_dumps(json_array_get(json_member(json_member(jwts, "jwks"), "keys"), 2), 0);

	key_file(o, "enc", text);
}
static void kid_twice(struct auth_options *o)
{
	const char *pem = text_of(json_member(jwts, "pem"), "rsa");
	_cleanup_free_ char *path = file_of("twice.pem", pem);
	_cleanup_free_ char *named = xasprintf("a=%s", path);

	rs256(o);
	add(&o->key_files, named);
	add(&o->key_files, named);
}
static void kid_contradicts(struct auth_options *o)
{
	_cleanup_free_ char *text =
	    json_dumps(json_array_get(json_member(json_member(jwts, "jwks"), "keys"), 0), 0);
	_cleanup_free_ char *path = file_of("k.json", text);
	_cleanup_free_ char *named = xasprintf("other=%s", path);

	rs256(o);
	add(&o->key_files, named);
}
static void jwks_missing(struct auth_options *o)
{
	rs256(o);
	set(&o->jwks_file, "/nowhere/jwks.json");
}
static void jwks_no_set(struct auth_options *o)
{
	rs256(o);
	o->jwks_file = file_of("noset.json", "{\"keys\":{}}");
}
static void jwks_empty(struct auth_options *o)
{
	rs256(o);
	o->jwks_file = file_of("emptyset.json", "{\"keys\":[]}");
}
static void jwks_private(struct auth_options *o)
{
	rs256(o);
	o->jwks_file = jwks_with("private.json", 0, "d", "AQAB");
}
static void jwks_bad_point(struct auth_options *o)
{
	rs256(o);
	add(&o->algorithms, "ES256");
	o->jwks_file =
	    jwks_with("point.json", 1, "x", "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
}
static void jwks_bad_kid(struct auth_options *o)
{
	rs256(o);
	o->jwks_file = jwks_with("kid.json", 0, "kid", "");
}
static void no_subject(struct auth_options *o)
{
	set(&o->jwt_claims.subject, "");
}
static void no_roles(struct auth_options *o)
{
	set(&o->cookie_claims.roles, NULL);
}
static void leeway(struct auth_options *o)
{
	o->leeway_s = 3600;
}
static void lifetime(struct auth_options *o)
{
	o->max_lifetime_s = -1;
}

static const struct {
	void (*spoil)(struct auth_options *);
	const char *expect; /* in the first error */
} refusals[] = {
    {no_algorithm, "[auth] algorithms: `PS256` is none of"},
    {none_algorithm, "[auth] algorithms: `none` is none of"},
    {no_issuer, "[auth] issuer: must be"},
    {no_audience, "[auth] audience: must be"},
    {secret_without_alg, "[auth] jwt_secret_file: there is a secret, but HS256"},
    {no_rsa_key, "there is no key for RS256"},
    {no_secret, "there is no key for HS256: name one in [auth] jwt_secret_file"},
    {short_secret, "[auth] jwt_secret_file: the environment's value is too short"},
    {missing_file, "[auth] jwt_secret_file: /nowhere/secret does not exist"},
    {folder, "/tmp is not a regular file"},
    {empty_file, "is empty"},
    {two_lines, "is not one line of text"},
    {pem_as_secret, "is a key in PEM format"},
    {world_writable, "may be written by everybody"},
    {too_many_secrets, "more than 4 secrets"},
    {short_nextauth, "[auth] nextauth_secret_file: the environment's value is too short"},
    {keys_without_alg, "no algorithm is accepted"},
    {small_rsa, "must have 2048 to 8192 bits"},
    {wrong_curve, "is not on the curve P-256"},
    {key_of_other_alg, "fits none of the algorithms"},
    {private_pem, "is a private key"},
    {certificate, "is a certificate"},
    {broken_pem, "is not a public key that"},
    {no_key_at_all, "is neither a PEM public key"},
    {set_as_key, "is a set of keys: name it in [auth] jwks_file"},
    {other_kty, "has a kty that is none of"},
    {key_for_encryption, "is not meant for verifying"},
    {kid_twice, "there is another RS256 key with the kid `a`"},
    {kid_contradicts, "has another kid"},
    {jwks_missing, "[auth] jwks_file: /nowhere/jwks.json does not exist"},
    {jwks_no_set, "is not a set of keys"},
    {jwks_empty, "has no key for the algorithms"},
    {jwks_private, "key 1 is a private key"},
    {jwks_bad_point, "key 2 is not a sound public key"},
    {jwks_bad_kid, "key 1 has no usable kid"},
    {no_subject, "[auth] subject_claim: must name a claim"},
    {no_roles, "[auth] cookie_roles_claim: must name a claim"},
    {leeway, "[auth] leeway: must be"},
    {lifetime, "[auth] max_token_lifetime: must be"},
};

START_TEST(errors_say_what_to_do_and_change_nothing)
{
	_cleanup_auth_ struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_json_ json_t *j = fixture("jwts.json");

	jwts = j;
	for (size_t i = 0; i < ELEMENTSOF(refusals); i++) {
		_cleanup_errors_ struct errors *errs = errors_new();
		struct auth_options o;

		usual(&o);
		refusals[i].spoil(&o);
		ck_assert_msg(auth_configure(a, &o, errs, NULL) == -EINVAL, "%s",
		              refusals[i].expect);
		ck_assert_msg(strstr(errors_text(errs, 0), refusals[i].expect) != NULL, "%s: %s",
		              refusals[i].expect, errors_text(errs, 0));
		for (size_t k = 0; errors_text(errs, k); k++)
			ck_assert(!strstr(errors_text(errs, k), "0123456789abcdef"));
		auth_options_done(&o);
		ck_assert_int_eq(bearer(a, t), 0);
	}
}
END_TEST

START_TEST(all_errors_at_once)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_errors_ struct errors *errs = errors_new();
	struct auth_options o;

	usual(&o);
	no_issuer(&o);
	no_audience(&o);
	missing_file(&o);
	short_nextauth(&o);
	ck_assert_int_eq(auth_configure(a, &o, errs, NULL), -EINVAL);
	ck_assert_uint_eq(errors_count(errs), 4);
	auth_options_done(&o);
}
END_TEST

START_TEST(what_everybody_may_read_is_noted)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_errors_ struct errors *errs = errors_new(), *notes = errors_new();
	struct auth_options o;

	usual(&o);
	secret_file(&o.jwt_secret, "shared", SECRET);
	ck_assert_int_eq(chmod(o.jwt_secret.files.item[0], 0644), 0);
	ck_assert_int_eq(auth_configure(a, &o, errs, notes), 0);
	ck_assert_uint_eq(errors_count(notes), 1);
	auth_options_done(&o);
}
END_TEST

/* API keys are accepted with nothing else configured. */
START_TEST(token_mode_needs_no_keys)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	struct auth_options o;

	auth_options_init(&o);
	configure(a, &o);
	auth_options_done(&o);
	ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
}
END_TEST

START_TEST(star_accepts_any)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *t = jwt(HS, "{\"sub\":\"u\",\"exp\":1800003600}");
	struct auth_options o;

	usual(&o);
	set(&o.issuer, "*");
	configure(a, &o);
	ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
	strlist_done(&o.audience);
	add(&o.audience, "*");
	configure(a, &o);
	ck_assert_int_eq(bearer(a, t), 0);
	auth_options_done(&o);
}
END_TEST

/* ---- change -------------------------------------------------------------------------- */

static int refresh(struct auth *a, size_t *ret_errors)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	int r = auth_refresh(a, errs, NULL);

	if (ret_errors)
		*ret_errors = errors_count(errs);
	return r;
}

START_TEST(changed_files_are_read_anew)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *path = file_of("rotating", SECRET);
	_cleanup_free_ char *old = jwt(HS, CLAIMS(""));
	static const char next[] = "another secret, thirty-two bytes or more";
	_cleanup_free_ char *new = jwt_signed(HS, CLAIMS(""), next, strlen(next));
	struct auth_options o;
	size_t errors;

	usual(&o);
	secret_unref(&o.jwt_secret.given);
	add(&o.jwt_secret.files, path);
	configure(a, &o);
	auth_options_done(&o);
	ck_assert_int_eq(bearer(a, old), 0);
	ck_assert_int_eq(bearer(a, new), -EKEYREJECTED);
	ck_assert_int_eq(refresh(a, NULL), 0);

	write_to(path, next);
	ck_assert_int_eq(bearer(a, old), 0);
	ck_assert_int_eq(refresh(a, NULL), 1);
	ck_assert_int_eq(bearer(a, old), -EKEYREJECTED);
	ck_assert_int_eq(bearer(a, new), 0);
	ck_assert_int_eq(refresh(a, NULL), 0);

	/* What is wrong is told once, and what was right stays. */
	write_to(path, "short");
	ck_assert_int_eq(refresh(a, &errors), -EINVAL);
	ck_assert_uint_eq(errors, 1);
	ck_assert_int_eq(refresh(a, &errors), 0);
	ck_assert_int_eq(bearer(a, new), 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(refresh(a, &errors), -EINVAL);
	ck_assert_int_eq(refresh(a, &errors), 0);
	ck_assert_int_eq(bearer(a, new), 0);
	write_to(path, SECRET);
	ck_assert_int_eq(refresh(a, NULL), 1);
	ck_assert_int_eq(bearer(a, old), 0);
}
END_TEST

/* Neither its size, nor its time of modification, nor its inode tell. */
START_TEST(changes_that_hide_are_noticed)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *path = file_of("hiding", SECRET);
	_cleanup_free_ char *text = xstrdup(SECRET);
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	struct auth_options o;
	struct stat st, now;
	int fd;

	usual(&o);
	secret_unref(&o.jwt_secret.given);
	add(&o.jwt_secret.files, path);
	configure(a, &o);
	auth_options_done(&o);
	ck_assert_int_eq(bearer(a, t), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	text[0] = 'x';
	/* Until the file system's clock has moved on. */
	do {
		fd = open(path, O_WRONLY | O_CLOEXEC);
		ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
		ck_assert_int_eq(futimens(fd, (struct timespec[]){st.st_atim, st.st_mtim}), 0);
		ck_assert_int_eq(fstat(fd, &now), 0);
		close(fd);
	} while (now.st_ctim.tv_nsec == st.st_ctim.tv_nsec);
	ck_assert_int_eq(refresh(a, NULL), 1);
	ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
}
END_TEST

START_TEST(secrets_overlap_while_one_is_replaced)
{
	_cleanup_auth_ struct auth *a = auth_new();
	static const char next[] = "another secret, thirty-two bytes or more";
	_cleanup_free_ char *old = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *new = jwt_signed(HS, CLAIMS(""), next, strlen(next));
	_cleanup_free_ char *neither = jwt_signed(HS, CLAIMS(""), "x", 1);
	_cleanup_free_ char *path = file_of("overlap", next);
	struct auth_options o;

	usual(&o);
	add(&o.jwt_secret.files, path);
	configure(a, &o);
	ck_assert_int_eq(bearer(a, old), 0);
	ck_assert_int_eq(bearer(a, new), 0);
	ck_assert_int_eq(bearer(a, neither), -EKEYREJECTED);
	secret_unref(&o.jwt_secret.given);
	configure(a, &o);
	ck_assert_int_eq(bearer(a, old), -EKEYREJECTED);
	ck_assert_int_eq(bearer(a, new), 0);
	auth_options_done(&o);
}
END_TEST

START_TEST(refused_options_are_not_watched)
{
	_cleanup_auth_ struct auth *a = usual_auth();
	_cleanup_errors_ struct errors *errs = errors_new();
	struct auth_options o;

	usual(&o);
	empty_file(&o);
	ck_assert_int_eq(auth_configure(a, &o, errs, NULL), -EINVAL);
	write_to(o.jwt_secret.files.item[0], SECRET "2");
	ck_assert_int_eq(refresh(a, NULL), 0);
	auth_options_done(&o);
}
END_TEST

START_TEST(change_of_settings_forgets_identities)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(",\"roles\":\"x\",\"groups\":\"y\""));
	_cleanup_free_ char *f = xasprintf("Bearer %s", t);
	struct credentials c = {.authorization = field(f)};
	struct auth_memory m = {0};
	struct identity *i;
	struct auth_options o;
	struct auth_stats s;
	const char *reason;

	ck_assert_int_eq(auth_identify_again(a, &m, &c, NOW, &i, &reason), 0);
	ck_assert_str_eq(i->roles_text, "x");
	usual(&o);
	set(&o.jwt_claims.roles, "groups");
	configure(a, &o);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.cached, 0);
	ck_assert_int_eq(auth_identify_again(a, &m, &c, NOW, &i, &reason), 0);
	ck_assert_str_eq(i->roles_text, "y");
	strlist_done(&o.audience);
	add(&o.audience, "else");
	configure(a, &o);
	ck_assert_int_eq(auth_identify_again(a, &m, &c, NOW, &i, &reason), -EKEYREJECTED);
	auth_options_done(&o);
	auth_memory_done(&m);
	auth_free(&a);
}
END_TEST

/* ---- secrets ------------------------------------------------------------------------- */

/* Whether core dumps leave the page out: `dd` among its flags. */
static bool is_left_out(const void *p)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long from, to, at = (unsigned long)p;
	bool here = false;
	char line[512];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = at >= from && at < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			return strstr(line, " dd") != NULL;
	}
	return false;
}

START_TEST(secrets_are_left_out_of_core_dumps)
{
	_cleanup_secret_ struct secret *s = secret_new(SECRET, strlen(SECRET));

	ck_assert(is_left_out(secret_bytes(s)));
	ck_assert(!is_left_out(&s));
}
END_TEST

START_TEST(environment_is_wiped)
{
	char value[] = "PROVOST_AUTH_SECRET=0123456789";
	_cleanup_secret_ struct secret *s = secret_take(value + 20);

	ck_assert_uint_eq(secret_len(s), 10);
	ck_assert_mem_eq(secret_bytes(s), "0123456789", 10);
	for (size_t i = 20; i < sizeof value; i++)
		ck_assert_int_eq(value[i], 0);
	ck_assert_ptr_null(secret_take(value + 20));
}
END_TEST

START_TEST(secrets_have_bounds)
{
	_cleanup_free_ char *huge = xcalloc(1, SECRET_MAX + 2);
	_cleanup_free_ char *path = NULL;
	_cleanup_secret_ struct secret *s = NULL;

	ck_assert_ptr_null(secret_new("", 0));
	ck_assert_ptr_null(secret_new(huge, SECRET_MAX + 1));
	memset(huge, 'x', SECRET_MAX);
	path = file_of("huge", huge);
	ck_assert_int_eq(secret_read_file(path, &s, NULL), 0);
	ck_assert_uint_eq(secret_len(s), SECRET_MAX);
	secret_unref(&s);
	huge[SECRET_MAX] = 'x';
	write_to(path, huge);
	ck_assert_int_eq(secret_read_file(path, &s, NULL), -EFBIG);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(secret_read_file(path, &s, NULL), -EISDIR);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth_settings");
	TCase *t = tcase_create("auth_settings");

	tcase_set_timeout(t, 100);
	tcase_add_test(t, errors_say_what_to_do_and_change_nothing);
	tcase_add_test(t, all_errors_at_once);
	tcase_add_test(t, what_everybody_may_read_is_noted);
	tcase_add_test(t, token_mode_needs_no_keys);
	tcase_add_test(t, star_accepts_any);
	tcase_add_test(t, changed_files_are_read_anew);
	tcase_add_test(t, changes_that_hide_are_noticed);
	tcase_add_test(t, secrets_overlap_while_one_is_replaced);
	tcase_add_test(t, refused_options_are_not_watched);
	tcase_add_test(t, change_of_settings_forgets_identities);
	tcase_add_test(t, secrets_are_left_out_of_core_dumps);
	tcase_add_test(t, environment_is_wiped);
	tcase_add_test(t, secrets_have_bounds);
	suite_add_tcase(s, t);
	return run_suite(s);
}
