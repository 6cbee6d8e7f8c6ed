/* Keys and revocations against a real PostgreSQL, in a database of each test's own. */
#include "real_pg.h"

#include <errno.h>

#include "provost/conn.h"
#include "provost/identities.h"

#define SOON (clock_us() + 60000000)

static char *url; /* of the test's own database, as its owner */
static char name[32];
static struct auth *auth;
static struct identities *ids;

static void command(const char *sql)
{
	PGconn *c = PQconnectdb(url);
	PGresult *r = PQexec(c, sql);

	ck_assert_msg(PQresultStatus(r) == PGRES_COMMAND_OK || PQresultStatus(r) == PGRES_TUPLES_OK,
	              "%s", PQerrorMessage(c));
	PQclear(r);
	PQfinish(c);
}

static unsigned number(const char *sql)
{
	PGconn *c = PQconnectdb(url);
	PGresult *r = PQexec(c, sql);

	ck_assert_msg(PQresultStatus(r) == PGRES_TUPLES_OK, "%s", PQerrorMessage(c));
	unsigned n = (unsigned)strtoul(PQgetvalue(r, 0, 0), NULL, 10);
	PQclear(r);
	PQfinish(c);
	return n;
}

static void install_schema(void)
{
	_cleanup_free_ char *path = xasprintf("%s/src/schema/schema.sql", getenv("SOURCE_ROOT"));
	_cleanup_fclose_ FILE *f = fopen(path, "r");
	_cleanup_free_ char *text = xcalloc(1, 1 << 16);

	ck_assert(f && fread(text, 1, (1 << 16) - 1, f) > 0);
	command(text);
}

static void setup(void)
{
	struct auth_options o;
	_cleanup_errors_ struct errors *errs = errors_new();

	pg_open();
	snprintf(name, sizeof name, "identities_%d", (int)getpid());
	_cleanup_free_ char *create = xasprintf("CREATE DATABASE %s", name);
	_cleanup_free_ char *database = xasprintf("dbname=%s", name);
	pg_ask(create);
	url = pg_with(getenv("PROVOST_TEST_DSN"), database);
	install_schema();
	auth = auth_new();
	auth_options_init(&o);
	ck_assert_int_eq(auth_configure(auth, &o, errs, NULL), 0);
	auth_options_done(&o);
	ids = identities_new(auth, url, true, -1);
}

static void teardown(void)
{
	_cleanup_free_ char *drop = xasprintf("DROP DATABASE %s WITH (FORCE)", name);

	identities_free(&ids);
	auth_free(&auth);
	pg_ask(drop);
	free(url);
	pg_close();
}

static struct conn *connect_as_worker(void)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct conn *c = conn_open(url, true, -1, SOON, errs);

	ck_assert_msg(c != NULL, "%s", errors_text(errs, 0));
	return c;
}

static int load(void)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	int r = identities_load(ids, errs);

	ck_assert_msg(r < 0 || errors_count(errs) == 0, "%s", errors_text(errs, 0));
	return r;
}

static struct auth_stats figures(void)
{
	struct auth_stats s;

	auth_stats(auth, &s);
	return s;
}

/* A new key of that subject, in the database. */
static void add_key(struct apikey *k, char text[APIKEY_LEN + 1], const char *subject)
{
	char digest[APIKEY_DIGEST_TEXT_LEN + 1];

	apikey_generate(k, text);
	apikey_digest_format(k->digest, digest);
	_cleanup_free_ char *sql =
	    xasprintf("INSERT INTO provost.api_key (id, digest, subject, roles) VALUES"
	              " ('%s', '\\x%s', '%s', '{admin,reader}')",
	              k->id, digest, subject);
	command(sql);
}

static int identify(const char *text)
{
	_cleanup_free_ char *bearer = xasprintf("Bearer %s", text);
	struct credentials c = {.authorization = {bearer, strlen(bearer)}};
	_cleanup_identity_ struct identity *i = NULL;
	const char *why;

	return auth_identify(auth, &c, (int64_t)time(NULL), &i, &why);
}

/* ---- loading ------------------------------------------------------------------------- */

START_TEST(only_what_has_changed_is_read)
{
	struct apikey k = {.id = ""};
	char text[APIKEY_LEN + 1];

	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(load(), 0);
	uint64_t generation = figures().generation;
	ck_assert_int_eq(load(), 0);
	ck_assert_uint_eq(figures().generation, generation);
	add_key(&k, text, "me");
	ck_assert_int_eq(identify(text), -EKEYREJECTED);
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), 0);
	command("UPDATE provost.api_key SET revoked_at = now()");
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), -EKEYREVOKED);
	command(
	    "UPDATE provost.api_key SET revoked_at = NULL, expires_at = now() - interval '1 s'");
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), -EKEYEXPIRED);
	command("UPDATE provost.api_key SET expires_at = 'infinity'");
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), 0);
	command("UPDATE provost.api_key SET expires_at = '-infinity'");
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), -EKEYEXPIRED);
	command("DELETE FROM provost.api_key");
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), -EKEYREJECTED);
}
END_TEST

START_TEST(what_cannot_be_read_leaves_what_is_in_memory)
{
	struct apikey k = {.id = ""};
	char text[APIKEY_LEN + 1];

	add_key(&k, text, "me");
	ck_assert_int_eq(load(), 1);
	command("ALTER TABLE provost.api_key RENAME TO away");
	ck_assert_int_eq(load(), -ENOENT);
	ck_assert_int_eq(identify(text), 0);
	command("ALTER TABLE provost.away RENAME TO api_key");
	ck_assert_int_eq(load(), 0);
	command("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
	        "current_database()"
	        " AND pid <> pg_backend_pid()");
	ck_assert_int_eq(load(), -ENOTCONN);
	ck_assert_int_eq(identify(text), 0);
	ck_assert_int_eq(load(), 0);
}
END_TEST

START_TEST(a_server_that_hangs_is_not_waited_for_long)
{
	PGconn *c = PQconnectdb(url);
	uint64_t before = clock_ms();

	ck_assert_int_eq(load(), 1);
	PQclear(PQexec(c, "BEGIN; LOCK provost.api_key"));
	ck_assert_int_eq(load(), -ENOTCONN);
	ck_assert_uint_lt(clock_ms() - before, 40000);
	PQfinish(c);
	ck_assert_int_eq(load(), 0);
}
END_TEST

/* ---- revocations --------------------------------------------------------------------- */

START_TEST(a_revocation_is_durable_and_in_force)
{
	_cleanup_conn_ struct conn *c = connect_as_worker();
	struct apikey k = {.id = ""}, other = {.id = ""};
	char text[APIKEY_LEN + 1], others[APIKEY_LEN + 1];

	add_key(&k, text, "me");
	add_key(&other, others, "you");
	ck_assert_int_eq(load(), 1);
	struct revocation r = {.kind = REVOKE_TOKEN, .what = k.id};
	ck_assert_int_eq(identities_revoke(ids, c, &r, "admin", SOON), 0);
	ck_assert_int_eq(conn_condition(c), CONN_CLEAN);
	ck_assert_int_eq(identify(text), -EKEYREVOKED);
	ck_assert_int_eq(identify(others), 0);
	ck_assert_uint_eq(
	    number("SELECT count(*) FROM provost.revocation WHERE kind = 'token'"
	           " AND issued_before IS NULL AND until IS NULL AND created_by = 'admin'"),
	    1);
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(text), -EKEYREVOKED);
	ck_assert_int_eq(identities_unrevoke(ids, c, REVOKE_TOKEN, k.id, SOON), 0);
	ck_assert_int_eq(identify(text), 0);
	ck_assert_uint_eq(number("SELECT count(*) FROM provost.revocation"), 0);
	ck_assert_int_eq(identities_unrevoke(ids, c, REVOKE_TOKEN, k.id, SOON), -ENOENT);

	r = (struct revocation){
	    .kind = REVOKE_SUBJECT, .what = (char[]){"you"}, .issued_before_s = INT64_MAX};
	ck_assert_int_eq(identities_revoke(ids, c, &r, "admin", SOON), 0);
	ck_assert_int_eq(identify(others), -EKEYREVOKED);
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identify(others), -EKEYREVOKED);
	ck_assert_uint_eq(
	    number("SELECT count(*) FROM provost.revocation WHERE issued_before = 'infinity'"), 1);
}
END_TEST

START_TEST(a_second_revocation_does_not_weaken_the_first)
{
	_cleanup_conn_ struct conn *c = connect_as_worker();
	struct revocation late = {REVOKE_SUBJECT, (char[]){"me"}, 2000, 0};
	struct revocation early = {REVOKE_SUBJECT, (char[]){"me"}, 1000, 5000};

	ck_assert_int_eq(identities_revoke(ids, c, &late, "a", SOON), 0);
	ck_assert_int_eq(identities_revoke(ids, c, &early, "b", SOON), 0);
	ck_assert_uint_eq(figures().revocations, 1);
	ck_assert_uint_eq(number("SELECT extract(epoch FROM issued_before) FROM provost.revocation"
	                         " WHERE until IS NULL"),
	                  2000);
}
END_TEST

START_TEST(what_is_refused_changes_nothing)
{
	_cleanup_conn_ struct conn *c = connect_as_worker();
	struct revocation bad[] = {
	    {REVOKE_TOKEN, (char[]){""}, 0, 0},
	    {REVOKE_TOKEN, (char[]){"a\nb"}, 0, 0},
	    {REVOKE_SUBJECT, (char[]){"\xff"}, 0, 0},
	    {REVOKE_SUBJECT, (char[]){"me"}, 0, -1},
	};
	struct revocation good = {REVOKE_TOKEN, (char[]){"x"}, 0, 0};

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		ck_assert_int_eq(identities_revoke(ids, c, &bad[i], "admin", SOON), -EINVAL);
	command("ALTER TABLE provost.revocation ADD CHECK (what <> 'x')");
	ck_assert_int_eq(identities_revoke(ids, c, &good, "admin", SOON), -EIO);
	ck_assert_int_eq(conn_condition(c), CONN_CLEAN);
	command("DROP TABLE provost.revocation");
	ck_assert_int_eq(identities_revoke(ids, c, &good, "admin", SOON), -ENOENT);
	ck_assert_int_eq(identities_unrevoke(ids, c, REVOKE_TOKEN, "x", SOON), -ENOENT);
	ck_assert_uint_eq(figures().revocations, 0);
}
END_TEST

START_TEST(a_connection_that_is_lost_is_said_to_be)
{
	_cleanup_conn_ struct conn *c = connect_as_worker();
	struct revocation r = {REVOKE_TOKEN, (char[]){"x"}, 0, 0};

	command("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
	        "current_database()"
	        " AND pid <> pg_backend_pid()");
	ck_assert_int_lt(identities_revoke(ids, c, &r, "admin", SOON), 0);
	ck_assert_int_eq(conn_condition(c), CONN_BROKEN);
	ck_assert_uint_eq(figures().revocations, 0);
}
END_TEST

/* Loads run all the while that others revoke: what is acknowledged stays in force. */
static atomic_bool loading;

static void *loader(void *arg)
{
	(void)arg;
	while (atomic_load(&loading)) {
		_cleanup_errors_ struct errors *errs = errors_new();
		ck_assert_int_ge(identities_load(ids, errs), 0);
	}
	return NULL;
}

START_TEST(a_load_does_not_undo_a_revocation)
{
	_cleanup_conn_ struct conn *c = connect_as_worker();
	pthread_t thread;

	atomic_store(&loading, true);
	pthread_create(&thread, NULL, loader, NULL);
	for (int n = 0; n < 200; n++) {
		char what[16];
		struct revocation r = {REVOKE_TOKEN, what, 0, 0};
		snprintf(what, sizeof what, "t%d", n);
		ck_assert_int_eq(identities_revoke(ids, c, &r, "admin", SOON), 0);
		ck_assert_uint_eq(figures().revocations, (unsigned)n + 1);
	}
	for (int n = 0; n < 200; n++) {
		char what[16];
		snprintf(what, sizeof what, "t%d", n);
		ck_assert_int_eq(identities_unrevoke(ids, c, REVOKE_TOKEN, what, SOON), 0);
		ck_assert_uint_eq(figures().revocations, 199u - (unsigned)n);
	}
	atomic_store(&loading, false);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(what_is_over_is_purged_but_for_keys)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct apikey k = {.id = ""};
	char text[APIKEY_LEN + 1];

	add_key(&k, text, "me");
	_cleanup_free_ char *sql =
	    xasprintf("INSERT INTO provost.revocation (kind, what, issued_before, until) VALUES"
	              " ('token', 'over', NULL, to_timestamp(1000)), ('token', 'open', NULL, NULL),"
	              " ('token', '%s', NULL, to_timestamp(1000)), ('subject', 'me', 'infinity', "
	              "to_timestamp(1000)),"
	              " ('subject', 'you', 'infinity', to_timestamp(1000))",
	              k.id);
	command(sql);
	ck_assert_int_eq(load(), 1);
	ck_assert_int_eq(identities_purge(ids, 999 + IDENTITIES_PURGE_MARGIN_S, errs), 0);
	ck_assert_uint_eq(figures().revocations, 5);
	ck_assert_int_eq(identities_purge(ids, 1000 + IDENTITIES_PURGE_MARGIN_S, errs), 0);
	ck_assert_uint_eq(figures().revocations, 3);
	ck_assert_uint_eq(number("SELECT count(*) FROM provost.revocation"), 3);
	ck_assert_int_eq(identify(text), -EKEYREVOKED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("identities");
	TCase *t = tcase_create("identities");

	if (!pg_is_there())
		return PG_SKIPPED;
	(void)relay_start, (void)relay_stop, (void)relay_hold, (void)relay_cut, (void)pg_running;
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, only_what_has_changed_is_read);
	tcase_add_test(t, what_cannot_be_read_leaves_what_is_in_memory);
	tcase_add_test(t, a_server_that_hangs_is_not_waited_for_long);
	tcase_add_test(t, a_revocation_is_durable_and_in_force);
	tcase_add_test(t, a_second_revocation_does_not_weaken_the_first);
	tcase_add_test(t, what_is_refused_changes_nothing);
	tcase_add_test(t, a_connection_that_is_lost_is_said_to_be);
	tcase_add_test(t, a_load_does_not_undo_a_revocation);
	tcase_add_test(t, what_is_over_is_purged_but_for_keys);
	suite_add_tcase(s, t);
	return pg_run_suite(s);
}
