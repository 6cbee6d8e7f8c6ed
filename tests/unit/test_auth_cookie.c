#include "auth_tokens.h"

/* ---- sessions ------------------------------------------------------------------------ */

struct session_case {
	const char *name, *header, *claims, *ek;
	size_t tag;
	int expect;
};

static const struct session_case cases[] = {
    {"good", DIR, SESSION(""), "", 16, 0},
    {"header in another order", "{\"enc\":\"A256GCM\",\"alg\":\"dir\",\"x\":1}", SESSION(""), "",
     16, 0},
    {"expired within leeway", DIR, "{\"sub\":\"u\",\"exp\":1799999986}", "", 16, 0},
    {"no sub", DIR, "{\"exp\":1800003600,\"role\":\"admin\"}", "", 16, -EKEYREJECTED},
    {"sub empty", DIR, "{\"sub\":\"\",\"exp\":1800003600}", "", 16, -EKEYREJECTED},
    {"sub a number", DIR, "{\"sub\":1,\"exp\":1800003600}", "", 16, -EKEYREJECTED},
    {"no exp", DIR, "{\"sub\":\"u\"}", "", 16, -EKEYREJECTED},
    {"expired", DIR, "{\"sub\":\"u\",\"exp\":1799999985}", "", 16, -EKEYEXPIRED},
    {"claims not JSON", DIR, "hello", "", 16, -EBADMSG},
    {"claims empty", DIR, "", "", 16, -EBADMSG},
    {"short tag", DIR, SESSION(""), "", 12, -EBADMSG},
    {"one byte of tag", DIR, SESSION(""), "", 1, -EBADMSG},
    {"no tag", DIR, SESSION(""), "", 0, -EBADMSG},
    {"encrypted key", DIR, SESSION(""), "AAAA", 16, -EBADMSG},
    {"alg none", "{\"alg\":\"none\",\"enc\":\"A256GCM\"}", SESSION(""), "", 16, -EBADMSG},
    {"alg A256KW", "{\"alg\":\"A256KW\",\"enc\":\"A256GCM\"}", SESSION(""), "", 16, -EBADMSG},
    {"alg absent", "{\"enc\":\"A256GCM\"}", SESSION(""), "", 16, -EBADMSG},
    {"alg in upper case", "{\"alg\":\"DIR\",\"enc\":\"A256GCM\"}", SESSION(""), "", 16, -EBADMSG},
    {"enc absent", "{\"alg\":\"dir\"}", SESSION(""), "", 16, -EBADMSG},
    {"enc A128GCM", "{\"alg\":\"dir\",\"enc\":\"A128GCM\"}", SESSION(""), "", 16, -EBADMSG},
    {"enc of NextAuth 5", "{\"alg\":\"dir\",\"enc\":\"A256CBC-HS512\"}", SESSION(""), "", 16,
     -EBADMSG},
    {"enc twice", "{\"alg\":\"dir\",\"enc\":\"x\",\"enc\":\"A256GCM\"}", SESSION(""), "", 16,
     -EBADMSG},
    {"zip", "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"zip\":\"DEF\"}", SESSION(""), "", 16, -EBADMSG},
    {"crit", "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"crit\":[\"x\"]}", SESSION(""), "", 16,
     -EBADMSG},
};

START_TEST(every_session_has_its_answer)
{
	struct auth *a = usual_auth();

	for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
		const struct session_case *c = &cases[i];
		_cleanup_free_ char *v = jwe(NEXT, c->header, c->claims, c->ek, c->tag);
		_cleanup_free_ char *f = xasprintf(PLAIN_NAME "=%s", v);

		ck_assert_msg(cookie(a, f) == c->expect, "%s: %d", c->name, cookie(a, f));
		ck_assert_msg(cookie(a, f) == c->expect, "%s, again", c->name);
	}
	auth_free(&a);
}
END_TEST

START_TEST(identity_of_a_session)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *f =
	    cookie_named(SECURE_NAME, NEXT, SESSION(",\"role\":\"ADMIN\",\"jti\":\"j\""));
	_cleanup_identity_ struct identity *i = NULL;

	ck_assert_int_eq(ask(a, NULL, f, NOW, &i), 0);
	ck_assert_int_eq(i->kind, IDENTITY_COOKIE);
	ck_assert(i->from_cookie);
	ck_assert_str_eq(i->subject, "user-1");
	ck_assert_str_eq(i->roles_text, "admin");
	ck_assert_str_eq(i->token_id, "j");
	ck_assert_str_eq(i->claims, "{\"role\":\"ADMIN\",\"sub\":\"user-1\"}");
	auth_free(&a);
}
END_TEST

/* What opens as a session is nothing in Authorization, and the other way round; also when it is
 * remembered. */
START_TEST(a_session_is_no_bearer_token)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *v = jwe(NEXT, DIR, SESSION(""), "", 16);
	_cleanup_free_ char *f = xasprintf(PLAIN_NAME "=%s", v);
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *g = xasprintf(PLAIN_NAME "=%s", t);

	ck_assert_int_eq(bearer(a, v), -EBADMSG);
	ck_assert_int_eq(cookie(a, f), 0);
	ck_assert_int_eq(bearer(a, v), -EBADMSG);
	ck_assert_int_eq(bearer(a, t), 0);
	ck_assert_int_eq(cookie(a, g), -EBADMSG);
	auth_free(&a);
}
END_TEST

START_TEST(authorization_decides)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *f = cookie_named(PLAIN_NAME, NEXT, SESSION(""));
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *good = xasprintf("Bearer %s", t);
	_cleanup_identity_ struct identity *i = NULL;

	ck_assert_int_eq(ask(a, good, f, NOW, &i), 0);
	ck_assert_int_eq(i->kind, IDENTITY_JWT);
	identity_unref(&i);
	ck_assert_int_eq(ask(a, good, PLAIN_NAME "=broken", NOW, &i), 0);
	identity_unref(&i);
	ck_assert_int_eq(ask(a, "Basic x", f, NOW, &i), -EBADMSG);
	ck_assert_int_eq(ask(a, "", f, NOW, &i), -EBADMSG);
	ck_assert_int_eq(ask(a, "Bearer x", f, NOW, &i), -EBADMSG);
	auth_free(&a);
}
END_TEST

START_TEST(wrong_secret)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *f = cookie_named(PLAIN_NAME, "another secret, as long", SESSION(""));

	ck_assert_int_eq(cookie(a, f), -EKEYREJECTED);
	auth_free(&a);
}
END_TEST

/* ---- the Cookie field ---------------------------------------------------------------- */

/* With `%1` the value, `%2` and `%3` its halves. */
static char *expand(const char *format, const char *value)
{
	size_t half = strlen(value) / 2, n;
	struct buf b = {0};

	for (const char *s = format; *s; s++) {
		if (*s != '%') {
			buf_addc(&b, *s);
			continue;
		}
		s++;
		if (*s == '1')
			buf_adds(&b, value);
		else if (*s == '2')
			buf_add(&b, value, half);
		else
			buf_adds(&b, value + half);
	}
	return buf_take(&b, &n);
}

START_TEST(cookie_field)
{
	static const struct {
		const char *format;
		int expect;
	} forms[] = {
	    {PLAIN_NAME "=%1", 0},
	    {SECURE_NAME "=%1", 0},
	    {"a=b; " PLAIN_NAME "=%1; c=d", 0},
	    {"a=b;" PLAIN_NAME "=%1;c", 0},
	    {" " PLAIN_NAME "=%1 ; ", 0},
	    {";;" PLAIN_NAME "=%1;;", 0},
	    {PLAIN_NAME ".0=%1", 0},
	    {PLAIN_NAME ".0=%2; " PLAIN_NAME ".1=%3", 0},
	    {PLAIN_NAME ".1=%3; x=y; " PLAIN_NAME ".0=%2", 0},
	    {SECURE_NAME ".1=%3; " SECURE_NAME ".0=%2", 0},
	    {PLAIN_NAME ".0=%2; " PLAIN_NAME ".1=; " PLAIN_NAME ".2=%3", 0},
	    {SECURE_NAME "=%1; " PLAIN_NAME "=other", 0},
	    {SECURE_NAME "=%1; " PLAIN_NAME ".1=%1", 0},
	    {PLAIN_NAME "-2=x; " PLAIN_NAME "=%1", 0},

	    {"", -ENOKEY},
	    {";", -ENOKEY},
	    {"=%1", -ENOKEY},
	    {PLAIN_NAME, -ENOKEY},
	    {"Next-Auth.session-token=%1", -ENOKEY},
	    {"x" PLAIN_NAME "=%1", -ENOKEY},
	    {PLAIN_NAME "2=%1", -ENOKEY},
	    {PLAIN_NAME "=", -EBADMSG},
	    {SECURE_NAME "=other; " PLAIN_NAME "=%1", -EBADMSG},
	    {PLAIN_NAME "=\"%1\"", -EBADMSG},
	    {PLAIN_NAME "= %1", -EBADMSG},
	    {PLAIN_NAME "=%1=", -EBADMSG},
	    {PLAIN_NAME "=%1; " PLAIN_NAME "=%1", -EBADMSG},
	    {PLAIN_NAME "=%1; " PLAIN_NAME ".0=%1", -EBADMSG},
	    {PLAIN_NAME ".1=%1", -EBADMSG},
	    {PLAIN_NAME ".0=%2; " PLAIN_NAME ".2=%3", -EBADMSG},
	    {PLAIN_NAME ".0=%2; " PLAIN_NAME ".0=%2; " PLAIN_NAME ".1=%3", -EBADMSG},
	    {PLAIN_NAME ".0=%3; " PLAIN_NAME ".1=%2", -EBADMSG},
	    {PLAIN_NAME ".0=%2; " SECURE_NAME ".1=%3", -EBADMSG},
	    {PLAIN_NAME ".0=%1; " PLAIN_NAME ".2=x", -EBADMSG},
	    {PLAIN_NAME ".00=%1", -EBADMSG},
	    {PLAIN_NAME ".=%1", -EBADMSG},
	    {PLAIN_NAME ".x=%1", -EBADMSG},
	    {PLAIN_NAME ".-1=%1", -EBADMSG},
	    {PLAIN_NAME ".16=%1", -EBADMSG},
	    {PLAIN_NAME ".0.0=%1", -EBADMSG},
	};
	struct auth *a = usual_auth();
	_cleanup_free_ char *v = jwe(NEXT, DIR, SESSION(""), "", 16);

	for (size_t i = 0; i < ELEMENTSOF(forms); i++) {
		_cleanup_free_ char *f = expand(forms[i].format, v);

		ck_assert_msg(cookie(a, f) == forms[i].expect, "%s: %d", forms[i].format,
		              cookie(a, f));
	}
	auth_free(&a);
}
END_TEST

START_TEST(large_sessions)
{
	struct auth *a = usual_auth();

	for (size_t n = 5000; n < 7000; n += 111) {
		_cleanup_free_ char *filler = xcalloc(1, n + 1);
		_cleanup_free_ char *claims = NULL, *v = NULL, *f = NULL;
		char text[30000], *p = text;

		memset(filler, 'x', n);
		claims = xasprintf("{\"sub\":\"u\",\"exp\":1800003600,\"x\":\"%s\"}", filler);
		v = jwe(NEXT, DIR, claims, "", 16);
		f = xasprintf(PLAIN_NAME "=%s", v);
		ck_assert_int_eq(cookie(a, f), strlen(v) <= AUTH_TOKEN_MAX ? 0 : -EMSGSIZE);
		for (size_t i = 0; i * 1000 < strlen(v); i++)
			p += sprintf(p, PLAIN_NAME ".%zu=%.1000s; ", i, v + i * 1000);
		ck_assert_int_eq(cookie(a, text), strlen(v) <= AUTH_TOKEN_MAX ? 0 : -EMSGSIZE);
	}
	auth_free(&a);
}
END_TEST

/* ---- the real NextAuth --------------------------------------------------------------- */

static struct auth *next_auth(const char *secret, const char *roles)
{
	struct auth *a = auth_new();
	struct auth_options o;

	auth_options_init(&o);
	o.nextauth_secret.given = secret_new(secret, strlen(secret));
	set(&o.cookie_claims.roles, roles);
	configure(a, &o);
	auth_options_done(&o);
	return a;
}

static const json_t *made(const json_t *j, const char *name)
{
	const json_t *all = json_member(j, "cookies");

	for (size_t i = 0; i < json_array_size(all); i++)
		if (strcmp(text_of(json_array_get(all, i), "name"), name) == 0)
			return json_array_get(all, i);
	ck_abort_msg("%s", name);
}

static char *made_field(const json_t *j, const char *name)
{
	const json_t *chunks = json_member(made(j, name), "chunks");
	struct buf b = {0};
	size_t n;

	for (size_t i = json_array_size(chunks); i-- > 0;)
		buf_addf(&b, "%s=%s; ", text_of(json_array_get(chunks, i), "name"),
		         text_of(json_array_get(chunks, i), "value"));
	return buf_take(&b, &n);
}

START_TEST(cookies_of_nextauth)
{
	static const struct {
		const char *name, *roles;
		int expect;
		const char *subject, *expect_roles;
	} sessions[] = {
	    {"admin", "role", 0, "user-1", "admin"},
	    {"student", "role", 0, "user-2", "student"},
	    {"roles", "roles", 0, "user-3", "admin,teacher"},
	    {"roles", "user.role", 0, "user-3", "teacher editor"},
	    {"large", "role", 0, "user-5", "admin"},
	    {"no-sub", "role", -EKEYREJECTED, NULL, NULL},
	    {"expired", "role", -EKEYEXPIRED, NULL, NULL},
	};
	_cleanup_json_ json_t *j = fixture("cookies.json");

	ck_assert_uint_eq(json_array_size(json_member(made(j, "large"), "chunks")), 2);
	for (size_t i = 0; i < ELEMENTSOF(sessions); i++) {
		_cleanup_auth_ struct auth *a = next_auth(text_of(j, "secret"), sessions[i].roles);
		_cleanup_free_ char *f = made_field(j, sessions[i].name);
		_cleanup_identity_ struct identity *who = NULL;

		ck_assert_msg(ask(a, NULL, f, NOW, &who) == sessions[i].expect, "%s",
		              sessions[i].name);
		if (!who)
			continue;
		ck_assert_str_eq(who->subject, sessions[i].subject);
		ck_assert_str_eq(who->roles_text, sessions[i].expect_roles);
	}
}
END_TEST

START_TEST(any_flipped_bit_closes)
{
	_cleanup_json_ json_t *j = fixture("cookies.json");
	_cleanup_auth_ struct auth *a = next_auth(text_of(j, "secret"), "role");
	const char *v = text_of(made(j, "admin"), "value");
	size_t at = strlen(PLAIN_NAME "="), n = strlen(v);
	_cleanup_free_ char *f = xasprintf(PLAIN_NAME "=%s", v);

	ck_assert_int_eq(cookie(a, f), 0);
	for (size_t bit = 0; bit < n * 8; bit++) {
		char *c = &f[at + bit / 8];

		*c ^= (char)(1 << bit % 8);
		/* A NUL or a `;` cuts the text short, or off. */
		ck_assert_msg(cookie(a, f) < 0, "bit %zu", bit);
		*c = v[bit / 8];
	}
	ck_assert_int_eq(cookie(a, f), 0);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *cut = xstrndup(f, at + i);

		ck_assert_msg(cookie(a, cut) < 0, "prefix %zu", i);
	}
}
END_TEST

/* The bits that base64url's last character has too many: another text, the same bytes. */
START_TEST(one_token_has_one_text)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	_cleanup_json_ json_t *j = fixture("cookies.json");
	_cleanup_auth_ struct auth *a = next_auth(text_of(j, "secret"), "role");
	_cleanup_free_ char *f = made_field(j, "admin");
	char *last = strrchr(f, ';') - 1;
	size_t good = 0;

	for (const char *d = digits; *d; d++) {
		*last = *d;
		good += cookie(a, f) == 0;
	}
	ck_assert_uint_eq(good, 1);
}
END_TEST

START_TEST(secrets_overlap_while_one_is_replaced)
{
	_cleanup_auth_ struct auth *a = auth_new();
	_cleanup_free_ char *old_file = file_of("old", NEXT "\n");
	_cleanup_free_ char *new_file = file_of("new", "a secret that nobody has seen yet\r\n");
	_cleanup_free_ char *old = cookie_named(PLAIN_NAME, NEXT, SESSION(""));
	_cleanup_free_ char *new =
	    cookie_named(PLAIN_NAME, "a secret that nobody has seen yet", SESSION(""));
	struct auth_options o;

	auth_options_init(&o);
	add(&o.nextauth_secret.files, old_file);
	configure(a, &o);
	ck_assert_int_eq(cookie(a, old), 0);
	ck_assert_int_eq(cookie(a, new), -EKEYREJECTED);
	add(&o.nextauth_secret.files, new_file);
	configure(a, &o);
	ck_assert_int_eq(cookie(a, old), 0);
	ck_assert_int_eq(cookie(a, new), 0);
	strlist_done(&o.nextauth_secret.files);
	add(&o.nextauth_secret.files, new_file);
	configure(a, &o);
	ck_assert_int_eq(cookie(a, old), -EKEYREJECTED);
	ck_assert_int_eq(cookie(a, new), 0);
	auth_options_done(&o);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth_cookie");
	TCase *t = tcase_create("auth_cookie");

	tcase_set_timeout(t, 100);
	tcase_add_test(t, every_session_has_its_answer);
	tcase_add_test(t, identity_of_a_session);
	tcase_add_test(t, a_session_is_no_bearer_token);
	tcase_add_test(t, authorization_decides);
	tcase_add_test(t, wrong_secret);
	tcase_add_test(t, cookie_field);
	tcase_add_test(t, large_sessions);
	tcase_add_test(t, cookies_of_nextauth);
	tcase_add_test(t, any_flipped_bit_closes);
	tcase_add_test(t, one_token_has_one_text);
	tcase_add_test(t, secrets_overlap_while_one_is_replaced);
	suite_add_tcase(s, t);
	return run_suite(s);
}
