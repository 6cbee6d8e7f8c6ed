#include "auth_tokens.h"

/* ---- API keys ------------------------------------------------------------------------ */

static struct apikey make(char text[APIKEY_LEN + 1], const char *subject, const char *role)
{
	struct apikey k = {.subject = xstrdup(subject), .created_s = NOW - 1000};

	apikey_generate(&k, text);
	add(&k.roles, role);
	return k;
}

static void put(struct auth *a, const struct apikey *k, size_t n)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_msg(auth_keys_set(a, k, n, errs) == 0, "%s", errors_text(errs, 0));
}

START_TEST(a_key_as_text)
{
	char text[APIKEY_LEN + 1], other[APIKEY_LEN + 1], hex[APIKEY_DIGEST_TEXT_LEN + 1];
	char id[APIKEY_ID_LEN + 1];
	unsigned char digest[APIKEY_DIGEST_LEN];
	struct apikey k = {0}, l = {0};

	apikey_generate(&k, text);
	apikey_generate(&l, other);
	ck_assert_uint_eq(strlen(text), 59);
	ck_assert_str_ne(text, other);
	ck_assert_str_ne(k.id, l.id);
	ck_assert_int_eq(apikey_parse(text, strlen(text), id), 0);
	ck_assert_str_eq(id, k.id);
	apikey_digest_format(k.digest, hex);
	ck_assert_uint_eq(strlen(hex), 64);
	ck_assert_int_eq(apikey_digest_parse(hex, 64, digest), 0);
	ck_assert_mem_eq(digest, k.digest, sizeof digest);
	ck_assert_int_eq(apikey_digest_parse(hex, 63, digest), -EINVAL);
	hex[5] = 'g';
	ck_assert_int_eq(apikey_digest_parse(hex, 64, digest), -EINVAL);
	for (size_t i = 0; i < APIKEY_LEN; i++) {
		ck_assert_int_eq(apikey_parse(text, i, id), -EINVAL);
		char was = text[i];
		text[i] = '-';
		ck_assert_int_eq(apikey_parse(text, APIKEY_LEN, id), -EINVAL);
		text[i] = '\0';
		ck_assert_int_eq(apikey_parse(text, APIKEY_LEN, id), -EINVAL);
		text[i] = was;
	}
	apikey_wipe(text);
	ck_assert_uint_eq(strlen(text), 0);
	/* The digest is the one that `printf %s KEY | sha256sum` prints. */
	ck_assert_int_eq(apikey_digest("abc", 3, digest), 0);
	apikey_digest_format(digest, hex);
	ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
END_TEST

/* All digits appear in all places: the secret is not cut short or biased to a part of them. */
START_TEST(secrets_are_evenly_spread)
{
	unsigned seen[APIKEY_SECRET_LEN][128] = {0};
	char text[APIKEY_LEN + 1];
	struct apikey k = {0};

	for (int i = 0; i < 4000; i++) {
		apikey_generate(&k, text);
		for (size_t j = 0; j < APIKEY_SECRET_LEN; j++)
			seen[j][(unsigned char)text[16 + j]]++;
	}
	for (size_t j = 1; j < APIKEY_SECRET_LEN; j++)
		for (int c = '0'; c <= '9'; c++)
			ck_assert_uint_gt(seen[j][c], 20);
}
END_TEST

START_TEST(a_key_identifies)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1];
	struct apikey k = make(text, "deploy", "Admin");
	_cleanup_identity_ struct identity *i = NULL, *none = NULL;

	ck_assert_int_eq(bearer(a, text), -EKEYREJECTED);
	put(a, &k, 1);
	ck_assert_int_eq(bearer_at(a, text, NOW, &i), 0);
	ck_assert_int_eq(i->kind, IDENTITY_API_KEY);
	ck_assert_str_eq(i->subject, "deploy");
	ck_assert_str_eq(i->roles_text, "admin");
	ck_assert_str_eq(i->token_id, k.id);
	ck_assert_str_eq(i->claims, "{\"roles\":[\"admin\"],\"sub\":\"deploy\"}");
	ck_assert_int_eq(i->expires_s, INT64_MAX);
	ck_assert(!i->from_cookie);
	for (size_t bit = 0; bit < APIKEY_LEN * 8; bit++) {
		char was = text[bit / 8];

		text[bit / 8] ^= (char)(1 << bit % 8);
		if (text[bit / 8] != '\0')
			ck_assert_int_lt(bearer_at(a, text, NOW, &none), 0);
		text[bit / 8] = was;
	}
	put(a, NULL, 0);
	ck_assert_int_eq(bearer(a, text), -EKEYREJECTED);
	apikey_done(&k);
	auth_free(&a);
}
END_TEST

START_TEST(keys_expire_and_are_revoked)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1];
	struct apikey k = make(text, "deploy", "admin");
	_cleanup_identity_ struct identity *i = NULL;

	k.expires_s = NOW + 10;
	put(a, &k, 1);
	ck_assert_int_eq(bearer_at(a, text, NOW + 9, &i), 0);
	identity_unref(&i);
	ck_assert_int_eq(bearer_at(a, text, NOW + 10, &i), -EKEYEXPIRED);
	k.revoked = true;
	put(a, &k, 1);
	ck_assert_int_eq(bearer(a, text), -EKEYREVOKED);
	/* Whoever has not got the secret is not told so. */
	text[APIKEY_LEN - 1] = text[APIKEY_LEN - 1] == 'a' ? 'b' : 'a';
	ck_assert_int_eq(bearer(a, text), -EKEYREJECTED);
	apikey_done(&k);
	auth_free(&a);
}
END_TEST

/* Whoever holds on to an identity of before. */
START_TEST(a_key_whose_rights_change)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1];
	struct apikey k = make(text, "deploy", "admin"), less = k;
	_cleanup_identity_ struct identity *i = NULL;
	const char *reason = NULL;

	put(a, &k, 1);
	ck_assert_int_eq(bearer_at(a, text, NOW, &i), 0);
	put(a, &k, 1); /* read anew, and the same */
	ck_assert_int_eq(auth_still_valid(a, i, NOW, &reason), 0);
	less.expires_s = NOW + 10;
	put(a, &less, 1);
	ck_assert_int_eq(auth_still_valid(a, i, NOW, &reason), -EKEYREJECTED);
	less = k;
	less.roles = (struct strlist){0};
	add(&less.roles, "student");
	put(a, &less, 1);
	ck_assert_int_eq(auth_still_valid(a, i, NOW, &reason), -EKEYREJECTED);
	ck_assert_int_eq(bearer(a, text), 0);
	strlist_done(&less.roles);
	apikey_done(&k);
	auth_free(&a);
}
END_TEST

START_TEST(many_keys)
{
	enum { N = 3000 };
	static char text[N][APIKEY_LEN + 1];
	static struct apikey k[N];
	struct auth *a = usual_auth();

	for (size_t n = 0; n < N; n++)
		k[n] = make(text[n], "s", "r");
	put(a, k, N);
	for (size_t n = 0; n < N; n++)
		ck_assert_int_eq(bearer(a, text[n]), 0);
	for (size_t n = 0; n < N; n++)
		apikey_done(&k[n]);
	auth_free(&a);
}
END_TEST

START_TEST(wrong_tables_change_nothing)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1], other[APIKEY_LEN + 1];
	struct apikey list[2] = {make(text, "a", "admin"), make(other, "b", "admin")};
	struct apikey *huge = xcalloc(APIKEYS_MAX + 1, sizeof *huge);
	char *was;

	put(a, list, 2);
	char newline[] = "a\nb", comma[] = "a,b";
	char *commas[] = {comma};
	for (int i = 0; i < 6; i++) {
		_cleanup_errors_ struct errors *errs = errors_new();
		struct apikey bad[2] = {list[0], list[1]};

		was = bad[1].subject;
		switch (i) {
		case 0:
			memcpy(bad[1].id, bad[0].id, sizeof bad[0].id);
			break;
		case 1:
			bad[1].id[0] = '1';
			break;
		case 2:
			bad[1].subject = NULL;
			break;
		case 3:
			bad[1].subject = newline;
			break;
		case 4:
			bad[1].expires_s = -1;
			break;
		case 5:
			bad[1].roles = (struct strlist){commas, 1};
			break;
		}
		ck_assert_int_eq(auth_keys_set(a, bad, 2, errs), -EINVAL);
		ck_assert_uint_eq(errors_count(errs), 1);
		bad[1].subject = was;
	}
	{
		_cleanup_errors_ struct errors *errs = errors_new();

		ck_assert_int_eq(auth_keys_set(a, huge, APIKEYS_MAX + 1, errs), -EINVAL);
	}
	ck_assert_int_eq(bearer(a, text), 0);
	ck_assert_int_eq(bearer(a, other), 0);
	free(huge);
	apikey_done(&list[0]);
	apikey_done(&list[1]);
	auth_free(&a);
}
END_TEST

/* ---- revocations --------------------------------------------------------------------- */

static int revoke_it(struct auth *a, enum revocation_kind kind, const char *what, int64_t before,
                     int64_t until)
{
	_cleanup_free_ char *w = xstrdup(what);
	struct revocation r = {kind, w, before, until};

	return auth_revoke(a, &r);
}

START_TEST(revoked_by_token)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *one = jwt(HS, CLAIMS(",\"jti\":\"t1\""));
	_cleanup_free_ char *two = jwt(HS, CLAIMS(",\"jti\":\"t2\""));
	_cleanup_free_ char *s = cookie_named(PLAIN_NAME, NEXT, SESSION(",\"jti\":\"c1\""));
	_cleanup_identity_ struct identity *i = NULL;
	const char *reason = NULL;

	ck_assert_int_eq(bearer_at(a, one, NOW, &i), 0);
	ck_assert_int_eq(cookie(a, s), 0);
	ck_assert_int_eq(auth_still_valid(a, i, NOW, &reason), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "t1", 0, 0), 0);
	ck_assert_int_eq(bearer(a, one), -EKEYREVOKED);
	ck_assert_int_eq(auth_still_valid(a, i, NOW, &reason), -EKEYREVOKED);
	ck_assert_int_eq(bearer(a, two), 0);
	ck_assert_int_eq(cookie(a, s), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "c1", 0, 0), 0);
	ck_assert_int_eq(cookie(a, s), -EKEYREVOKED);
	ck_assert_int_eq(auth_unrevoke(a, REVOKE_TOKEN, "t1"), 0);
	ck_assert_int_eq(bearer(a, one), 0);
	ck_assert_int_eq(auth_unrevoke(a, REVOKE_TOKEN, "t1"), -ENOENT);
	ck_assert_int_eq(auth_unrevoke(a, REVOKE_SUBJECT, "c1"), -ENOENT);
	auth_free(&a);
}
END_TEST

START_TEST(revoked_by_subject)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1];
	struct apikey k = make(text, "user-1", "admin");
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	_cleanup_free_ char *undated = jwt(HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD
	                                       "\",\"sub\":\"user-1\",\"exp\":1800003600}");
	_cleanup_free_ char *other = jwt(HS, "{\"iss\":\"" ISS "\",\"aud\":\"" AUD
	                                     "\",\"sub\":\"user-2\",\"exp\":1800003600}");

	put(a, &k, 1);
	ck_assert_int_eq(bearer(a, text), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_SUBJECT, "user-1", 1799998999, 0), 0);
	ck_assert_int_eq(bearer(a, t), 0);
	ck_assert_int_eq(bearer(a, undated), -EKEYREVOKED);
	ck_assert_int_eq(bearer(a, other), 0);
	ck_assert_int_eq(bearer(a, text), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_SUBJECT, "user-1", 1799999000, 0), 0);
	ck_assert_int_eq(bearer(a, t), -EKEYREVOKED);
	ck_assert_int_eq(bearer(a, text), -EKEYREVOKED);
	/* An earlier moment does not weaken it. */
	ck_assert_int_eq(revoke_it(a, REVOKE_SUBJECT, "user-1", 0, 1), 0);
	ck_assert_int_eq(bearer(a, t), -EKEYREVOKED);
	ck_assert_int_eq(revoke_it(a, REVOKE_SUBJECT, "user-2", INT64_MAX, 0), 0);
	ck_assert_int_eq(bearer(a, other), -EKEYREVOKED);
	apikey_done(&k);
	auth_free(&a);
}
END_TEST

START_TEST(revocations_are_sets_with_a_bound)
{
	struct auth *a = usual_auth();
	_cleanup_errors_ struct errors *errs = errors_new();
	struct revocation *list = xcalloc(AUTH_REVOCATIONS_MAX + 1, sizeof *list);
	struct auth_stats s;
	struct revocation bad[] = {
	    {REVOKE_TOKEN, NULL, 0, 0},
	    {REVOKE_TOKEN, (char[]){0}, 0, 0},
	    {REVOKE_SUBJECT, (char[]){'a', '\t', 0}, 0, 0},
	    {(enum revocation_kind)7, (char[]){'a', 0}, 0, 0},
	    {REVOKE_SUBJECT, (char[]){'a', 0}, 0, -1},
	};

	for (size_t i = 0; i <= AUTH_REVOCATIONS_MAX; i++)
		list[i] = (struct revocation){REVOKE_TOKEN, xasprintf("t%zu", i), 0, 0};
	ck_assert_int_eq(auth_revocations_set(a, list, AUTH_REVOCATIONS_MAX, errs), 0);
	ck_assert_int_eq(auth_revocations_set(a, list, AUTH_REVOCATIONS_MAX + 1, errs), -EINVAL);
	ck_assert_uint_eq(errors_count(errs), 1);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.revocations, AUTH_REVOCATIONS_MAX);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "t5", 0, 0), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "one more", 0, 0), -ENOSPC);
	ck_assert_int_eq(auth_unrevoke(a, REVOKE_TOKEN, "t5"), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "one more", 0, 0), 0);
	for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
		ck_assert_int_eq(auth_revoke(a, &bad[i]), -EINVAL);
		ck_assert_int_eq(auth_revocations_set(a, &bad[i], 1, errs), -EINVAL);
	}
	ck_assert_int_eq(auth_revocations_set(a, list, 0, errs), 0);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.revocations, 0);
	for (size_t i = 0; i <= AUTH_REVOCATIONS_MAX; i++)
		free(list[i].what);
	free(list);
	auth_free(&a);
}
END_TEST

START_TEST(purge_drops_what_no_token_needs)
{
	struct auth *a = usual_auth();
	char text[APIKEY_LEN + 1];
	struct apikey k = make(text, "deploy", "admin");
	struct auth_stats s;

	put(a, &k, 1);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "past", 0, NOW), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "future", 0, NOW + 1), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "kept", 0, 0), 0);
	/* Its tokens have expired, but its key would be good again. */
	ck_assert_int_eq(revoke_it(a, REVOKE_SUBJECT, "deploy", NOW, NOW), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, k.id, 0, NOW), 0);
	ck_assert_uint_eq(auth_revocations_purge(a, NOW), 1);
	ck_assert_uint_eq(auth_revocations_purge(a, NOW), 0);
	ck_assert_int_eq(bearer(a, text), -EKEYREVOKED);
	put(a, NULL, 0);
	ck_assert_uint_eq(auth_revocations_purge(a, NOW + 1), 3);
	auth_stats(a, &s);
	ck_assert_uint_eq(s.revocations, 1);
	apikey_done(&k);
	auth_free(&a);
}
END_TEST

/* ---- a connection's memory ----------------------------------------------------------- */

static int again(struct auth *a, struct auth_memory *m, const char *authorization,
                 const char *cookie_field, int64_t now, struct identity **ret)
{
	/* In memory of its own each time: nothing may hold on to the caller's. */
	_cleanup_free_ char *x = authorization ? xstrdup(authorization) : NULL;
	_cleanup_free_ char *y = cookie_field ? xstrdup(cookie_field) : NULL;
	struct credentials c = {field(x), field(y)};
	const char *reason = NULL;
	int r;

	*ret = NULL;
	r = auth_identify_again(a, m, &c, now, ret, &reason);
	if (r < 0)
		check_reason(reason);
	return r;
}

START_TEST(a_connection_remembers)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *t = jwt(HS, CLAIMS(",\"jti\":\"t1\""));
	_cleanup_free_ char *f = xasprintf("Bearer %s", t);
	_cleanup_free_ char *longer = xasprintf("%sA", f);
	_cleanup_free_ char *s = cookie_named(PLAIN_NAME, NEXT, SESSION(""));
	struct auth_memory m = {0};
	struct identity *i, *j;

	ck_assert_int_eq(again(a, &m, NULL, NULL, NOW, &i), -ENOKEY);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &i), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	ck_assert_ptr_eq(i, j);
	/* Another, a longer, a shorter, none: not the remembered one. */
	ck_assert_int_lt(again(a, &m, longer, NULL, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	longer[strlen(f) - 1] = '\0';
	ck_assert_int_lt(again(a, &m, longer, NULL, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, NULL, NULL, NOW, &j), -ENOKEY);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, "", NULL, NOW, &j), -EBADMSG);
	/* The same text in the other field. */
	ck_assert_int_eq(again(a, &m, NULL, s, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, s, NULL, NOW, &j), -EBADMSG);
	ck_assert_int_eq(again(a, &m, NULL, s, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, f, s, NOW, &j), 0);
	ck_assert_int_eq(j->kind, IDENTITY_JWT);
	ck_assert_int_eq(again(a, &m, NULL, s, NOW, &j), 0);
	ck_assert(j->from_cookie);
	/* Time passes. */
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, 1800003600 + 15, &j), -EKEYEXPIRED);
	/* Things change. */
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	ck_assert_int_eq(revoke_it(a, REVOKE_TOKEN, "t1", 0, 0), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), -EKEYREVOKED);
	ck_assert_int_eq(auth_unrevoke(a, REVOKE_TOKEN, "t1"), 0);
	ck_assert_int_eq(again(a, &m, f, NULL, NOW, &j), 0);
	auth_memory_done(&m);
	ck_assert_ptr_null(m.text);
	auth_free(&a);
}
END_TEST

START_TEST(what_is_too_large_is_not_remembered)
{
	struct auth *a = usual_auth();
	_cleanup_free_ char *s = cookie_named(PLAIN_NAME, NEXT, SESSION(""));
	_cleanup_free_ char *filler = xcalloc(1, AUTH_CREDENTIALS_MAX + 1);
	_cleanup_free_ char *f = NULL;
	struct auth_memory m = {0};
	struct identity *i;

	memset(filler, 'x', AUTH_CREDENTIALS_MAX);
	f = xasprintf("%s; big=%s", s, filler);
	ck_assert_int_eq(again(a, &m, NULL, f, NOW, &i), 0);
	ck_assert_ptr_null(m.text);
	ck_assert_str_eq(i->subject, "user-1");
	ck_assert_int_eq(again(a, &m, NULL, f, NOW, &i), 0);
	ck_assert_int_eq(again(a, &m, NULL, NULL, NOW, &i), -ENOKEY);
	auth_memory_done(&m);
	auth_free(&a);
}
END_TEST

START_TEST(everybody_is_admin_without_authentication)
{
	struct auth *a = auth_new();
	struct auth_options o;
	struct auth_memory m = {0};
	struct strlist roles = {0};
	struct identity *i;
	_cleanup_identity_ struct identity *j = NULL;
	const char *reason;

	auth_options_init(&o);
	o.mode = AUTH_NONE;
	configure(a, &o);
	ck_assert_int_eq(auth_mode(a), AUTH_NONE);
	for (int n = 0; n < 2; n++) {
		ck_assert_int_eq(again(a, &m, NULL, NULL, NOW, &i), 0);
		ck_assert_str_eq(i->subject, "anonymous");
		ck_assert_int_eq(i->kind, IDENTITY_NONE);
		ck_assert_str_eq(i->claims, "{\"roles\":[\"admin\"],\"sub\":\"anonymous\"}");
		ck_assert_int_eq(again(a, &m, "Bearer x", NULL, NOW, &i), 0);
	}
	add(&roles, "ADMIN");
	ck_assert(identity_allows(i, &roles));
	strlist_done(&roles);
	ck_assert_int_eq(ask(a, "Basic x", "y", NOW, &j), 0);
	ck_assert_int_eq(auth_still_valid(a, j, NOW, &reason), 0);
	auth_options_done(&o);

	/* Back again: nobody stays an administrator. */
	usual(&o);
	configure(a, &o);
	ck_assert_int_eq(again(a, &m, NULL, NULL, NOW, &i), -ENOKEY);
	ck_assert_int_eq(auth_still_valid(a, j, NOW, &reason), -EKEYREJECTED);
	auth_options_done(&o);
	auth_memory_done(&m);
	auth_free(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth_keys");
	TCase *t = tcase_create("auth_keys");

	tcase_set_timeout(t, 100);
	tcase_add_test(t, a_key_as_text);
	tcase_add_test(t, secrets_are_evenly_spread);
	tcase_add_test(t, a_key_identifies);
	tcase_add_test(t, keys_expire_and_are_revoked);
	tcase_add_test(t, a_key_whose_rights_change);
	tcase_add_test(t, many_keys);
	tcase_add_test(t, wrong_tables_change_nothing);
	tcase_add_test(t, revoked_by_token);
	tcase_add_test(t, revoked_by_subject);
	tcase_add_test(t, revocations_are_sets_with_a_bound);
	tcase_add_test(t, purge_drops_what_no_token_needs);
	tcase_add_test(t, a_connection_remembers);
	tcase_add_test(t, what_is_too_large_is_not_remembered);
	tcase_add_test(t, everybody_is_admin_without_authentication);
	suite_add_tcase(s, t);
	return run_suite(s);
}
