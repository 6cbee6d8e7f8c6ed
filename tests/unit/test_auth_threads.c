/*
 * Many threads identify while keys, revocations and settings change under them. What each caller
 * gets must be right at some moment between its question and its answer; what was revoked before
 * the question must be refused.
 */
#include <pthread.h>

#include "auth_tokens.h"

enum { READERS = 6, ROUNDS = 300, ANSWERS = 100000 };

struct stage {
	struct auth *a;
	char *jwt[4], *cookie[4];
	char key[APIKEY_LEN + 1];
	struct apikey k;
	atomic_bool over;
	atomic_uint good, refused;
	/* Modulo 4: 1, token 3 is revoked; 3, it is not; else it may be either. Raised behind each
	 * change, so that whoever sees it asks later. */
	atomic_uint turn;
};

static int ask_again(struct stage *s, struct auth_memory *m, const char *authorization,
                     const char *c, const char *subject)
{
	struct credentials cr = {field(authorization), field(c)};
	struct identity *i;
	const char *reason;
	int r = auth_identify_again(s->a, m, &cr, NOW, &i, &reason);

	if (r == 0)
		ck_assert_str_eq(i->subject, subject);
	else
		check_reason(reason);
	atomic_fetch_add(r == 0 ? &s->good : &s->refused, 1);
	return r;
}

static void *read_all(void *arg)
{
	struct stage *s = arg;
	struct auth_memory m = {0}, key = {0};
	_cleanup_free_ char *k = xasprintf("Bearer %s", s->key);

	while (!atomic_load(&s->over)) {
		for (int n = 0; n < 3; n++) {
			char subject[16];

			snprintf(subject, sizeof subject, "user-%d", n);
			ask_again(s, &m, s->jwt[n], NULL, subject);
			ask_again(s, &m, NULL, s->cookie[n], subject);
			ask_again(s, &key, k, NULL, "deploy");
		}
	}
	auth_memory_done(&m);
	auth_memory_done(&key);
	return NULL;
}

/* Token 3 goes in and out: an answer is wrong when the turn was the same before and after it. */
static void *watch_revoked(void *arg)
{
	struct stage *s = arg;
	struct auth_memory m = {0};

	while (!atomic_load(&s->over)) {
		unsigned before = atomic_load(&s->turn);
		int r = ask_again(s, &m, s->jwt[3], NULL, "user-3");
		unsigned after = atomic_load(&s->turn);

		if (before == after && before % 4 == 1)
			ck_assert_int_eq(r, -EKEYREVOKED);
		if (before == after && before % 4 == 3)
			ck_assert_int_eq(r, 0);
	}
	auth_memory_done(&m);
	return NULL;
}

static void *revoke_all(void *arg)
{
	struct stage *s = arg;
	char three[] = "t3", one[] = "user-1";
	struct revocation token = {REVOKE_TOKEN, three, 0, 0};
	struct revocation subject = {REVOKE_SUBJECT, one, INT64_MAX, 0};

	for (int i = 0; i < ROUNDS || s->good + s->refused < ANSWERS; i++) {
		ck_assert_int_eq(auth_revoke(s->a, &token), 0);
		atomic_fetch_add(&s->turn, 1);
		ck_assert_int_eq(auth_revoke(s->a, &subject), 0);
		atomic_fetch_add(&s->turn, 1);
		ck_assert_int_eq(auth_unrevoke(s->a, REVOKE_TOKEN, three), 0);
		atomic_fetch_add(&s->turn, 1);
		ck_assert_int_eq(auth_unrevoke(s->a, REVOKE_SUBJECT, one), 0);
		auth_revocations_purge(s->a, NOW);
		atomic_fetch_add(&s->turn, 1);
	}
	return NULL;
}

static void *change_keys(void *arg)
{
	struct stage *s = arg;

	while (!atomic_load(&s->over)) {
		_cleanup_errors_ struct errors *errs = errors_new();

		ck_assert_int_eq(auth_keys_set(s->a, NULL, 0, errs), 0);
		ck_assert_int_eq(auth_keys_set(s->a, &s->k, 1, errs), 0);
	}
	return NULL;
}

static void *change_settings(void *arg)
{
	struct stage *s = arg;
	struct auth_options o;

	usual(&o);
	for (int i = 0; !atomic_load(&s->over); i++) {
		struct auth_stats stats;

		o.max_lifetime_s = i % 2 ? 0 : 7200;
		configure(s->a, &o);
		auth_stats(s->a, &stats);
	}
	auth_options_done(&o);
	return NULL;
}

START_TEST(everything_changes)
{
	static struct stage s;
	void *(*const job[])(void *) = {change_keys, change_settings, watch_revoked, watch_revoked};
	pthread_t reader[READERS], other[ELEMENTSOF(job)], revoker;

	s.a = usual_auth();
	s.k = (struct apikey){.subject = xstrdup("deploy")};
	apikey_generate(&s.k, s.key);
	for (int n = 0; n < 4; n++) {
		_cleanup_free_ char *claims =
		    xasprintf("{\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"user-%d\","
		              "\"jti\":\"t%d\",\"exp\":1800003600}",
		              n, n);
		_cleanup_free_ char *t = jwt(HS, claims);

		s.jwt[n] = xasprintf("Bearer %s", t);
		s.cookie[n] = cookie_named(PLAIN_NAME, NEXT, claims);
	}
	for (size_t i = 0; i < READERS; i++)
		pthread_create(&reader[i], NULL, read_all, &s);
	for (size_t i = 0; i < ELEMENTSOF(job); i++)
		pthread_create(&other[i], NULL, job[i], &s);
	pthread_create(&revoker, NULL, revoke_all, &s);
	pthread_join(revoker, NULL);
	atomic_store(&s.over, true);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	for (size_t i = 0; i < ELEMENTSOF(job); i++)
		pthread_join(other[i], NULL);
	ck_assert_uint_gt(s.good, ANSWERS / 100);
	ck_assert_uint_gt(s.refused, ANSWERS / 100);
	for (int n = 0; n < 4; n++) {
		free(s.jwt[n]);
		free(s.cookie[n]);
	}
	apikey_done(&s.k);
	auth_free(&s.a);
}
END_TEST

/* A thread's last look at the keys must not outlive it. */
static void *identify_once(void *arg)
{
	struct stage *s = arg;
	struct auth_memory m = {0};

	ck_assert_int_eq(ask_again(s, &m, s->jwt[0], NULL, "user-1"), 0);
	auth_memory_done(&m);
	return NULL;
}

START_TEST(threads_come_and_go)
{
	struct stage s = {.a = usual_auth()};
	_cleanup_free_ char *t = jwt(HS, CLAIMS(""));
	pthread_t thread[4];

	s.jwt[0] = xasprintf("Bearer %s", t);
	for (int round = 0; round < 50; round++) {
		for (size_t i = 0; i < ELEMENTSOF(thread); i++)
			pthread_create(&thread[i], NULL, identify_once, &s);
		for (size_t i = 0; i < ELEMENTSOF(thread); i++)
			pthread_join(thread[i], NULL);
	}
	free(s.jwt[0]);
	auth_free(&s.a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth_threads");
	TCase *t = tcase_create("auth_threads");

	tcase_set_timeout(t, 300);
	tcase_add_test(t, everything_changes);
	tcase_add_test(t, threads_come_and_go);
	suite_add_tcase(s, t);
	return run_suite(s);
}
