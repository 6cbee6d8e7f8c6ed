#include "../../src/auth/idcache.h"
#include "../../src/auth/identity.h"
#include "auth_tokens.h"

/* ---- one token, one answer ----------------------------------------------------------- */

struct token_case {
	const char *name, *header, *claims;
	int expect;
};

static const struct token_case cases[] = {
    {"good", HS, CLAIMS(""), 0},
    {"no typ", "{\"alg\":\"HS256\"}", CLAIMS(""), 0},
    {"typ of RFC 9068", "{\"alg\":\"HS256\",\"typ\":\"application/at+JWT\"}", CLAIMS(""), 0},
    {"unknown header member", "{\"alg\":\"HS256\",\"x\":[1]}", CLAIMS(""), 0},
    {"aud in an array", HS,
     "{\"iss\":\"" ISS "\",\"aud\":[\"x\",\"" AUD "\"],\"sub\":\"u\",\"exp\":1800003600}", 0},
    {"roles as text", HS, CLAIMS(",\"roles\":\"admin editor\""), 0},
    {"roles null", HS, CLAIMS(",\"roles\":null"), 0},
    {"a fraction of a second", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1800003600.75}", 0},
    {"expired within leeway", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1799999986}", 0},
    {"nbf within leeway", HS, CLAIMS(",\"nbf\":1800000015"), 0},

    {"alg none", "{\"alg\":\"none\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg None", "{\"alg\":\"None\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg absent", "{\"typ\":\"JWT\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg a number", "{\"alg\":256}", CLAIMS(""), -EKEYREJECTED},
    {"alg not listed", "{\"alg\":\"RS256\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg that cjose knows", "{\"alg\":\"HS512\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg with NUL", "{\"alg\":\"HS256\\u0000\"}", CLAIMS(""), -EBADMSG},
    {"alg in lower case", "{\"alg\":\"hs256\"}", CLAIMS(""), -EKEYREJECTED},
    {"alg twice", "{\"alg\":\"none\",\"alg\":\"HS256\"}", CLAIMS(""), -EBADMSG},
    {"crit", "{\"alg\":\"HS256\",\"crit\":[\"x\"],\"x\":1}", CLAIMS(""), -EBADMSG},
    {"crit empty", "{\"alg\":\"HS256\",\"crit\":[]}", CLAIMS(""), -EBADMSG},
    {"b64", "{\"alg\":\"HS256\",\"b64\":false}", CLAIMS(""), -EBADMSG},
    {"b64 true", "{\"alg\":\"HS256\",\"b64\":true}", CLAIMS(""), -EBADMSG},
    {"zip", "{\"alg\":\"HS256\",\"zip\":\"DEF\"}", CLAIMS(""), -EBADMSG},
    {"logout token", "{\"alg\":\"HS256\",\"typ\":\"logout+jwt\"}", CLAIMS(""), -EKEYREJECTED},
    {"typ a number", "{\"alg\":\"HS256\",\"typ\":1}", CLAIMS(""), -EKEYREJECTED},
    {"kid unknown", "{\"alg\":\"HS256\",\"kid\":\"k\"}", CLAIMS(""), -EKEYREJECTED},
    {"kid a number", "{\"alg\":\"HS256\",\"kid\":1}", CLAIMS(""), -EBADMSG},
    {"header an array", "[]", CLAIMS(""), -EBADMSG},
    {"header empty", "", CLAIMS(""), -EBADMSG},
    {"header with a comment", "{\"alg\":\"HS256\"/**/}", CLAIMS(""), -EBADMSG},
    {"header with more behind", "{\"alg\":\"HS256\"}{}", CLAIMS(""), -EBADMSG},

    {"expired", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1799999985}",
     -EKEYEXPIRED},
    {"exp absent", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\"}", -EKEYREJECTED},
    {"exp a text", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":\"1800003600\"}",
     -EKEYREJECTED},
    {"exp negative", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":-1}",
     -EKEYREJECTED},
    {"exp endless", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1e300}",
     -EKEYREJECTED},
    {"exp null", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":null}",
     -EKEYREJECTED},
    {"exp NaN", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":NaN}",
     -EBADMSG},
    {"not yet", HS, CLAIMS(",\"nbf\":1800000016"), -EKEYEXPIRED},
    {"nbf a text", HS, CLAIMS(",\"nbf\":\"1\""), -EKEYREJECTED},
    {"issued in the future", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD
     "\",\"sub\":\"u\",\"iat\":1800000016,\"exp\":1800003600}",
     -EKEYEXPIRED},
    {"other issuer", HS,
     "{\"iss\":\"https://x\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1800003600}", -EKEYREJECTED},
    {"issuer that begins alike", HS,
     "{\"iss\":\"" ISS "/\",\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1800003600}", -EKEYREJECTED},
    {"issuer absent", HS, "{\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1800003600}", -EKEYREJECTED},
    {"issuer an array", HS,
     "{\"iss\":[\"" ISS "\"],\"aud\":\"" AUD "\",\"sub\":\"u\",\"exp\":1800003600}", -EKEYREJECTED},
    {"other audience", HS, "{\"iss\":\"" ISS "\",\"aud\":\"x\",\"sub\":\"u\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"audience absent", HS, "{\"iss\":\"" ISS "\",\"sub\":\"u\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"audience an object", HS,
     "{\"iss\":\"" ISS "\",\"aud\":{\"" AUD "\":1},\"sub\":\"u\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"audience empty", HS, "{\"iss\":\"" ISS "\",\"aud\":[],\"sub\":\"u\",\"exp\":1800003600}",
     -EKEYREJECTED},

    {"sub absent", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"sub empty", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"sub a number", HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":1,\"exp\":1800003600}",
     -EKEYREJECTED},
    {"sub with newline", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"a\\nb\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"sub with C1", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"a\\u0085b\",\"exp\":1800003600}",
     -EKEYREJECTED},
    {"sub with NUL", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"a\\u0000b\",\"exp\":1800003600}",
     -EBADMSG},
    {"sub not UTF-8", HS,
     "{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"\xff\",\"exp\":1800003600}", -EBADMSG},
    {"sub twice", HS, CLAIMS(",\"sub\":\"user-2\""), -EBADMSG},
    {"jti a number", HS, CLAIMS(",\"jti\":1"), -EKEYREJECTED},
    {"jti empty", HS, CLAIMS(",\"jti\":\"\""), -EKEYREJECTED},
    {"roles a number", HS, CLAIMS(",\"roles\":1"), -EKEYREJECTED},
    {"roles of numbers", HS, CLAIMS(",\"roles\":[\"admin\",1]"), -EKEYREJECTED},
    {"role empty", HS, CLAIMS(",\"roles\":[\"\"]"), -EKEYREJECTED},
    {"role with comma", HS, CLAIMS(",\"roles\":[\"a,admin\"]"), -EKEYREJECTED},
    {"claims an array", HS, "[]", -EBADMSG},
    {"claims empty", HS, "", -EBADMSG},
    {"claims cut short", HS, "{\"sub\":", -EBADMSG},
    {"claims with a raw tab", HS, "{\"sub\":\"\t\"}", -EBADMSG},
};

START_TEST(every_token_has_its_answer)
{
	struct auth *a = usual_auth();

	for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
		_cleanup_free_ char *t = jwt(cases[i].header, cases[i].claims);

		/* Twice: a remembered one is answered like a new one. */
		ck_assert_msg(bearer(a, t) == cases[i].expect, "%s: %d", cases[i].name,
		              bearer(a, t));
		ck_assert_msg(bearer(a, t) == cases[i].expect, "%s, again", cases[i].name);
	}
	auth_free(&a);
}
END_TEST

START_TEST(authorization_field)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *long_token = xcalloc(1, AUTH_TOKEN_MAX + 2);
	const struct {
		const char *format;
		int expect;
	} forms[] = {
	    {"Bearer %s", 0},
	    {"bearer %s", 0},
	    {"BEARER   %s", 0},
	    {"Bearer", -EBADMSG},
	    {"Bearer ", -EBADMSG},
	    {"", -EBADMSG},
	    {"Bearer\t%s", -EBADMSG},
	    {" Bearer %s", -EBADMSG},
	    {"Bearer %s ", -EBADMSG},
	    {"Bearer %s,", -EBADMSG},
	    {"Bearer \"%s\"", -EBADMSG},
	    {"Bearer %s %s", -EBADMSG},
	    {"Bearer x, Bearer %s", -EBADMSG},
	    {"Basic dXNlcjpwYXNz", -EBADMSG},
	    {"Token %s", -EBADMSG},
	    {"%s", -EBADMSG},
	    {"Bearer %s=", -EBADMSG},
	    {"Bearer =", -EBADMSG},
	    {"Bearer .", -EBADMSG},
	    {"Bearer ..", -EBADMSG},
	    {"Bearer ...", -EBADMSG},
	    {"Bearer ....", -EBADMSG},
	    {"Bearer .....", -EBADMSG},
	    {"Bearer x.y.z", -EBADMSG},
	    {"Bearer %s.", -EBADMSG},
	    {"Bearer .%s", -EBADMSG},
	    {"Bearer +%s", -EBADMSG},
	};

	for (size_t i = 0; i < ELEMENTSOF(forms); i++) {
		_cleanup_identity_ struct identity *who = NULL;
		_cleanup_free_ char *f = xasprintf(forms[i].format, t, t);
		int r = ask(a, f, NULL, NOW, &who);

		ck_assert_msg(r == forms[i].expect, "%s: %d", forms[i].format, r);
	}
	memset(long_token, 'a', AUTH_TOKEN_MAX);
	ck_assert_int_eq(bearer(a, long_token), -EBADMSG);
	long_token[AUTH_TOKEN_MAX] = 'a';
	ck_assert_int_eq(bearer(a, long_token), -EMSGSIZE);
	auth_free(&a);
}
END_TEST

START_TEST(nothing_is_no_credentials)
{
	struct auth *a = usual_auth();
	_cleanup_identity_ struct identity *i = NULL;
	char out[AUTH_CHALLENGE_MAX];

	ck_assert_int_eq(ask(a, NULL, NULL, NOW, &i), -ENOKEY);
	ck_assert_int_eq(ask(a, NULL, "theme=dark", NOW, &i), -ENOKEY);
	auth_challenge(-ENOKEY, "there are no credentials", out);
	ck_assert_str_eq(out, "Bearer realm=\"provost\"");
	auth_challenge(-EKEYEXPIRED, "the token has expired", out);
	ck_assert_str_eq(out, "Bearer realm=\"provost\", error=\"invalid_token\", "
	                      "error_description=\"the token has expired\"");
	auth_free(&a);
}
END_TEST

START_TEST(without_settings_nobody_is_accepted)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *c = cookie_named(PLAIN_NAME, NEXT, SESSION(""));

	ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
	ck_assert_int_eq(cookie(a, c), -ENOKEY);
}
END_TEST

/* ---- what it says -------------------------------------------------------------------- */

START_TEST(identity_is_what_the_token_says)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(
	    HS, CLAIMS(",\"jti\":\"t1\",\"roles\":[\"Editor\",\"ADMIN\",\"editor\"],\"z\":1.5"));
	_cleanup_free_ char *same = jwt(
	    HS, "{\"z\":1.5,\"roles\":[\"Editor\",\"ADMIN\",\"editor\"],\"jti\":\"t2\",\"nbf\":1,"
	        "\"sub\":\"user-1\",\"exp\":1800000100,\"aud\":\"" AUD "\",\"iss\":\"" ISS "\"}");
	_cleanup_identity_ struct identity *i = NULL, *j = NULL;
	struct strlist allowed = {0}, other = {0}, none = {0};

	ck_assert_int_eq(bearer_at(a, t, NOW, &i), 0);
	ck_assert_str_eq(i->subject, "user-1");
	ck_assert_str_eq(i->roles_text, "admin,editor");
	ck_assert_uint_eq(i->roles.count, 2);
	ck_assert_str_eq(i->roles.item[1], "editor");
	ck_assert_str_eq(i->token_id, "t1");
	ck_assert_int_eq(i->expires_s, 1800003600 + AUTH_LEEWAY_S);
	ck_assert_int_eq(i->issued_s, 1799999000);
	ck_assert_int_eq(i->kind, IDENTITY_JWT);
	ck_assert(!i->from_cookie);
	ck_assert_str_eq(i->claims,
	                 "{\"aud\":\"" AUD "\",\"iss\":\"" ISS "\",\"roles\":[\"Editor\","
	                 "\"ADMIN\",\"editor\"],\"sub\":\"user-1\",\"z\":1.5}");
	ck_assert_int_eq(bearer_at(a, same, NOW, &j), 0);
	ck_assert_str_eq(i->claims, j->claims);
	ck_assert_int_eq(j->issued_s, INT64_MIN);

	add(&allowed, "x");
	add(&allowed, "Admin");
	add(&other, "student");
	ck_assert(identity_allows(i, &allowed));
	ck_assert(!identity_allows(i, &other));
	ck_assert(!identity_allows(i, &none));
	strlist_done(&allowed);
	strlist_done(&other);
	auth_free(&a);
}
END_TEST

START_TEST(claims_by_name_or_path)
{
	static const struct {
		const char *subject, *roles, *more, *expect_subject, *expect_roles;
	} names[] = {
	    {"sub", "realm_access.roles", ",\"realm_access\":{\"roles\":[\"a\"]}", "user-1", "a"},
	    {"sub", "https://x.org/roles", ",\"https://x.org/roles\":\"b a\"", "user-1", "a,b"},
	    {"email", "roles", ",\"email\":\"a@b\",\"roles\":\"a, b\"", "a@b", "a,b"},
	    {"user.id", "user.role", ",\"user\":{\"id\":\"u\",\"role\":\"R\"}", "u", "r"},
	    {"sub", "a.b.c", ",\"a\":{\"b\":1}", "user-1", ""},
	    {"sub", "a.b.c", ",\"a\":[1]", "user-1", ""},
	    {"sub", "a..c", ",\"a\":{\"\":{\"c\":\"x\"}}", "user-1", "x"},
	    {"jti", "exp.x", ",\"jti\":\"me\"", "me", ""},
	};

	for (size_t k = 0; k < ELEMENTSOF(names); k++) {
		_cleanup_auth_ struct auth *a = auth_new();
		_cleanup_identity_ struct identity *i = NULL;
		_cleanup_free_ char *claims =
		    xasprintf("{\"iss\":\"" ISS "\",\"aud\":\"" AUD
		              "\",\"sub\":\"user-1\",\"exp\":1800003600%s}",
		              names[k].more);
		_cleanup_free_ char *t = jwt(HS, claims);
		struct auth_options o;

		usual(&o);
		set(&o.jwt_claims.subject, names[k].subject);
		set(&o.jwt_claims.roles, names[k].roles);
		configure(a, &o);
		auth_options_done(&o);
		ck_assert_msg(bearer_at(a, t, NOW, &i) == 0, "%s", names[k].more);
		ck_assert_str_eq(i->subject, names[k].expect_subject);
		ck_assert_str_eq(i->roles_text, names[k].expect_roles);
	}
}
END_TEST

static int with_claim(struct auth *a, const char *name, const char *value)
{
	_cleanup_free_ char *claims =
	    xasprintf("{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",%s\"%s\":%s,\"exp\":1800003600}",
	              strcmp(name, "sub") == 0 ? "" : "\"sub\":\"u\",", name, value);
	_cleanup_free_ char *t = jwt(HS, claims);

	return bearer(a, t);
}

START_TEST(limits)
{
	struct auth *a = usual_auth();
	char text[8000] = "";

	/* Claims in claims. */
	for (int depth = 1; depth < 40; depth++) {
		char *p = text;

		for (int i = 0; i < depth; i++)
			*p++ = '[';
		for (int i = 0; i < depth; i++)
			*p++ = ']';
		*p = '\0';
		ck_assert_int_eq(with_claim(a, "x", text),
		                 depth + 1 <= AUTH_CLAIMS_DEPTH_MAX ? 0 : -EBADMSG);
	}
	ck_assert_int_eq(with_claim(a, "x", "\"[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\""), 0);
	/* Names. */
	for (size_t n = 254; n <= 257; n++) {
		snprintf(text, sizeof text, "\"%0*d\"", (int)n, 1);
		ck_assert_int_eq(with_claim(a, "sub", text), n <= 255 ? 0 : -EKEYREJECTED);
		ck_assert_int_eq(with_claim(a, "jti", text), n <= 255 ? 0 : -EKEYREJECTED);
	}
	for (size_t n = 63; n <= 66; n++) {
		snprintf(text, sizeof text, "\"%0*d\"", (int)n, 1);
		ck_assert_int_eq(with_claim(a, "roles", text), n <= 64 ? 0 : -EKEYREJECTED);
	}
	for (size_t n = 63; n <= 66; n++) {
		char *p = text;

		*p++ = '"';
		for (size_t i = 0; i < n; i++)
			p += sprintf(p, "r%zu ", i);
		strcpy(p, "\"");
		ck_assert_int_eq(with_claim(a, "roles", text), n <= 64 ? 0 : -EKEYREJECTED);
	}
	auth_free(&a);
}
END_TEST

START_TEST(lifetime_is_bounded_when_it_is_to_be)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	struct auth_options o;

	usual(&o);
	o.max_lifetime_s = 3600;
	configure(a, &o);
	ck_assert_int_eq(bearer(a, t), 0);
	o.max_lifetime_s = 3584;
	configure(a, &o);
	ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
	auth_options_done(&o);
}
END_TEST

/* ---- spelling ------------------------------------------------------------------------ */

/* Any other text than the token's own is refused: each bit of it, and each character left out,
 * doubled or replaced. */
START_TEST(tampered_tokens_are_refused)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(",\"roles\":[\"student\"]"));
	size_t n = strlen(t);
	_cleanup_free_ char *x = xcalloc(1, n + 2);

	ck_assert_int_eq(bearer(a, t), 0);
	for (size_t bit = 0; bit < n * 8; bit++) {
		strcpy(x, t);
		x[bit / 8] ^= (char)(1 << bit % 8);
		if (x[bit / 8] == '\0')
			continue;
		ck_assert_msg(bearer(a, x) < 0, "bit %zu", bit);
	}
	for (size_t i = 0; i < n; i++) {
		strcpy(x, t);
		memmove(x + i, x + i + 1, n - i);
		ck_assert_msg(bearer(a, x) < 0, "without %zu", i);
		strcpy(x, t);
		memmove(x + i + 1, x + i, n - i + 1);
		ck_assert_msg(bearer(a, x) < 0, "doubled %zu", i);
		memcpy(x, t, i);
		x[i] = '\0';
		ck_assert_msg(bearer(a, x) < 0, "prefix %zu", i);
	}
	ck_assert_int_eq(bearer(a, t), 0);
	auth_free(&a);
}
END_TEST

/* ---- other makers -------------------------------------------------------------------- */

static struct auth *node_auth(const json_t *j, bool hs256, bool jwks)
{
	struct auth *a = auth_new();
	struct auth_options o;

	auth_options_init(&o);
	add(&o.algorithms, "RS256");
	add(&o.algorithms, "ES256");
	set(&o.issuer, ISS);
	add(&o.audience, AUD);
	set(&o.jwt_claims.roles, "realm_access.roles");
	if (hs256) {
		const char *s = text_of(j, "secret");

		add(&o.algorithms, "HS256");
		o.jwt_secret.given = secret_new(s, strlen(s));
	}
	if (jwks) {
		_cleanup_free_ char *text = json_dumps(json_member(j, "jwks"), 0);
		o.jwks_file = file_of("jwks.json", text);
	} else {
		_cleanup_free_ char *rsa =
		    file_of("rsa.pem", text_of(json_member(j, "pem"), "rsa"));
		_cleanup_free_ char *ec = file_of("ec.pem", text_of(json_member(j, "pem"), "ec"));
		_cleanup_free_ char *named = xasprintf("rsa-1=%s", rsa);

		add(&o.key_files, named);
		add(&o.key_files, ec);
	}
	configure(a, &o);
	auth_options_done(&o);
	return a;
}

START_TEST(tokens_of_node)
{
	static const struct {
		const char *name;
		int jwks, pem; /* PEM: the RSA key has a kid, the EC key none */
	} tokens[] = {
	    {"hs256", 0, 0},
	    {"rs256", 0, 0},
	    {"rs256_no_kid", 0, 0},
	    {"es256", 0, -EKEYREJECTED},
	    {"none", -EKEYREJECTED, -EKEYREJECTED},
	    {"wrong_key", -EKEYREJECTED, -EKEYREJECTED},
	    {"unknown_kid", -EKEYREJECTED, -EKEYREJECTED},
	    {"confused", -EKEYREJECTED, -EKEYREJECTED},
	    {"confused_no_kid", -EKEYREJECTED, -EKEYREJECTED},
	    {"es256_der", -EKEYREJECTED, -EKEYREJECTED},
	};
	_cleanup_json_ json_t *j = fixture("jwts.json");
	_cleanup_auth_ struct auth *jwks = node_auth(j, true, true);
	_cleanup_auth_ struct auth *pem = node_auth(j, true, false);

	for (size_t i = 0; i < ELEMENTSOF(tokens); i++) {
		const char *t = text_of(json_member(j, "tokens"), tokens[i].name);

		ck_assert_msg(bearer(jwks, t) == tokens[i].jwks, "%s: %d", tokens[i].name,
		              bearer(jwks, t));
		ck_assert_msg(bearer(pem, t) == tokens[i].pem, "%s: %d", tokens[i].name,
		              bearer(pem, t));
	}
}
END_TEST

START_TEST(tampered_signatures_are_refused)
{
	_cleanup_json_ json_t *j = fixture("jwts.json");
	_cleanup_auth_ struct auth *a = node_auth(j, true, true);

	for (int k = 0; k < 2; k++) {
		const char *t = text_of(json_member(j, "tokens"), k ? "es256" : "rs256");
		size_t n = strlen(t);
		_cleanup_free_ char *x = xstrdup(t);

		for (size_t bit = 0; bit < n * 8; bit++) {
			x[bit / 8] ^= (char)(1 << bit % 8);
			if (x[bit / 8] != '\0')
				ck_assert_msg(bearer(a, x) < 0, "bit %zu", bit);
			x[bit / 8] = t[bit / 8];
		}
		ck_assert_int_eq(bearer(a, x), 0);
	}
}
END_TEST

/* cjose halves what is there, and would not miss the last byte of an odd one. */
START_TEST(signature_has_its_length)
{
	_cleanup_json_ json_t *j = fixture("jwts.json");
	_cleanup_auth_ struct auth *a = node_auth(j, true, true);
	const char *t = text_of(json_member(j, "tokens"), "es256");
	_cleanup_free_ char *text = xstrndup(t, (size_t)(strrchr(t, '.') - t));
	unsigned char signature[65] = {0};
	size_t len;

	ck_assert_int_eq(sodium_base642bin(signature, 64, t + strlen(text) + 1,
	                                   strlen(t) - strlen(text) - 1, NULL, &len, NULL,
	                                   sodium_base64_VARIANT_URLSAFE_NO_PADDING),
	                 0);
	for (size_t n = 0; n <= 65; n++) {
		_cleanup_free_ char *s = b64(signature, n);
		_cleanup_free_ char *x = xasprintf("%s.%s", text, s);

		ck_assert_int_eq(bearer(a, x), n == 64 ? 0 : -EKEYREJECTED);
	}
}
END_TEST

/* Which keys are there does not matter: what is not listed is refused, and without `kid` the choice
 * must be clear. */
START_TEST(algorithms_are_those_listed)
{
	_cleanup_json_ json_t *j = fixture("jwts.json");
	_cleanup_auth_ struct auth *a = node_auth(j, false, true);

	ck_assert_int_eq(bearer(a, text_of(json_member(j, "tokens"), "rs256")), 0);
	ck_assert_int_eq(bearer(a, text_of(json_member(j, "tokens"), "hs256")), -EKEYREJECTED);
	ck_assert_int_eq(bearer(a, text_of(json_member(j, "tokens"), "confused")), -EKEYREJECTED);
	/* Before any key is looked for. */
	_cleanup_free_ char *f = xasprintf("Bearer %s", text_of(json_member(j, "tokens"), "hs256"));
	struct credentials c = {.authorization = field(f)};
	struct identity *i = NULL;
	const char *reason;
	ck_assert_int_eq(auth_identify(a, &c, NOW, &i, &reason), -EKEYREJECTED);
	ck_assert_str_eq(reason, "the token's algorithm is not accepted");
}
END_TEST

START_TEST(two_keys_need_a_kid)
{
	_cleanup_json_ json_t *j = fixture("jwts.json");
	json_t *keys = json_member(json_member(j, "jwks"), "keys");
	_cleanup_json_ json_t *second = json_deep_copy(json_array_get(keys, 0));
	_cleanup_auth_ struct auth *a = NULL;

	json_object_set_new(second, "kid", json_string("rsa-9"));
	json_array_append(keys, second);
	a = node_auth(j, false, true);
	ck_assert_int_eq(bearer(a, text_of(json_member(j, "tokens"), "rs256")), 0);
	ck_assert_int_eq(bearer(a, text_of(json_member(j, "tokens"), "rs256_no_kid")),
	                 -EKEYREJECTED);
}
END_TEST

/* RFC 7515, appendices A.1 to A.3; the first is RFC 7519's example, too. They have no sub. */
START_TEST(tokens_of_the_rfcs)
{
#define JOE                                                                                        \
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0" \
	"cnVlfQ"
	static const char *const tokens[] = {
	    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." JOE
	    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
	    "eyJhbGciOiJSUzI1NiJ9." JOE
	    ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_"
	    "O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
	    "nZLgrnbyTyWzO75vRK5h6xBArLIARN"
	    "PvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
	    "eOkHWEsqtFZESc6BfI7noOPqvhJ1"
	    "phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
	    "eyJhbGciOiJFUzI1NiJ9." JOE ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-"
	    "F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
	};
	_cleanup_free_ char *jwks = file_of(
	    "rfc.json",
	    "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-"
	    "1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"},"
	    "{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_"
	    "wWJcyQoTbji9k0l8W26mPddxHmfHQ"
	    "p-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_"
	    "YpRPEwOWvG6b32690r2jZ47soMZo9w"
	    "Gzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
	    "UTo7WTBEMa2R2CapHg665xsmtdVMTBQY"
	    "4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_"
	    "h9iaGNj8q2ethFkMLs91kzk2PAcD"
	    "TW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"},"
	    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":"
	    "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
	    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}");
	_cleanup_auth_ struct auth *a = auth_new();
	struct auth_options o;

	auth_options_init(&o);
	add(&o.algorithms, "HS256");
	add(&o.algorithms, "RS256");
	add(&o.algorithms, "ES256");
	set(&o.issuer, "joe");
	add(&o.audience, "*");
	set(&o.jwks_file, jwks);
	set(&o.jwt_claims.subject, "iss");
	configure(a, &o);
	auth_options_done(&o);
	for (size_t k = 0; k < ELEMENTSOF(tokens); k++) {
		_cleanup_identity_ struct identity *i = NULL;

		ck_assert_msg(bearer_at(a, tokens[k], 1300819000, &i) == 0, "A.%zu", k + 1);
		ck_assert_str_eq(i->subject, "joe");
		identity_unref(&i);
		ck_assert_int_eq(bearer_at(a, tokens[k], 1300819380 + 15, &i), -EKEYEXPIRED);
	}
}
END_TEST

/* ---- remembering --------------------------------------------------------------------- */

START_TEST(what_is_cached_expires)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_identity_ struct identity *i = NULL, *j = NULL, *k = NULL;
	struct auth_stats s;

	ck_assert_int_eq(bearer_at(a, t, NOW, &i), 0);
	ck_assert_int_eq(bearer_at(a, t, NOW, &j), 0);
	ck_assert_ptr_eq(i, j);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.cached, 1);
	ck_assert_int_eq(bearer_at(a, t, 1800003600 + 14, &k), 0);
	ck_assert_ptr_eq(i, k);
	identity_unref(&k);
	ck_assert_int_eq(bearer_at(a, t, 1800003600 + 15, &k), -EKEYEXPIRED);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.cached, 0);
	auth_free(&a);
}
END_TEST

START_TEST(refused_tokens_take_no_room)
{
	struct auth *a = usual_auth();
	struct auth_stats s;

	for (int i = 0; i < 1000; i++) {
		_cleanup_free_ char *claims = xasprintf(CLAIMS(",\"n\":%d"), i);
		_cleanup_free_ char *t = jwt_signed(HS, claims, "another secret", 14);

		ck_assert_int_eq(bearer(a, t), -EKEYREJECTED);
	}
	auth_stats(a, &s);
	ck_assert_uint_eq(s.cached, 0);
	auth_free(&a);
}
END_TEST

START_TEST(cache_is_bounded)
{
	struct auth *a = usual_auth();
	struct auth_stats s;

	for (int i = 0; i < AUTH_CACHED_MAX + 4000; i++) {
		_cleanup_free_ char *claims = xasprintf(CLAIMS(",\"n\":%d"), i);
		_cleanup_free_ char *t = jwt(HS, claims);

		ck_assert_int_eq(bearer(a, t), 0);
	}
	auth_stats(a, &s);
	ck_assert_uint_le(s.cached, AUTH_CACHED_MAX);
	ck_assert_uint_gt(s.cached, AUTH_CACHED_MAX * 3 / 4);
	auth_free(&a);
}
END_TEST

/* A caller that began before a change of settings may put what it verified into the cache after it.
 */
START_TEST(what_other_settings_verified_is_not_found)
{
	struct idcache *c = idcache_new();
	struct role_set roles = {.count = 0};
	struct identity_parts p = {.subject = "s",
	                           .claims = "{}",
	                           .token_id = "",
	                           .roles = &roles,
	                           .expires_s = NOW + 1,
	                           .origin = 1};
	_cleanup_identity_ struct identity *i = identity_new(&p), *found = NULL;
	unsigned char digest[DIGEST_LEN] = {1}, other[DIGEST_LEN] = {1, [31] = 1};

	idcache_put(c, digest, i, NOW);
	ck_assert_ptr_null(idcache_get(c, other, 1, NOW));
	found = idcache_get(c, digest, 1, NOW);
	ck_assert_ptr_eq(found, i);
	ck_assert_ptr_null(idcache_get(c, digest, 2, NOW));
	ck_assert_uint_eq(idcache_count(c), 0);
	idcache_free(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth_jwt");
	TCase *t = tcase_create("auth_jwt");

	tcase_set_timeout(t, 100);
	tcase_add_test(t, every_token_has_its_answer);
	tcase_add_test(t, authorization_field);
	tcase_add_test(t, nothing_is_no_credentials);
	tcase_add_test(t, without_settings_nobody_is_accepted);
	tcase_add_test(t, identity_is_what_the_token_says);
	tcase_add_test(t, claims_by_name_or_path);
	tcase_add_test(t, limits);
	tcase_add_test(t, lifetime_is_bounded_when_it_is_to_be);
	tcase_add_test(t, tampered_tokens_are_refused);
	tcase_add_test(t, tokens_of_node);
	tcase_add_test(t, tampered_signatures_are_refused);
	tcase_add_test(t, signature_has_its_length);
	tcase_add_test(t, algorithms_are_those_listed);
	tcase_add_test(t, two_keys_need_a_kid);
	tcase_add_test(t, tokens_of_the_rfcs);
	tcase_add_test(t, what_is_cached_expires);
	tcase_add_test(t, refused_tokens_take_no_room);
	tcase_add_test(t, cache_is_bounded);
	tcase_add_test(t, what_other_settings_verified_is_not_found);
	suite_add_tcase(s, t);
	return run_suite(s);
}
