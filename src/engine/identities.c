#include "provost/identities.h"

#include <errno.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <string.h>

#include "provost/conn.h"
#include "provost/stmt.h"

enum { MARKER_MAX = 96, ROLE_SEPARATOR = '\n' };

struct identities {
	struct auth *auth;
	struct auth *scratch; /* refuses what `auth` would refuse */
	char *url;
	bool prepare;
	int interrupt;
	struct conn *conn;       /* NULL: not connected */
	char marker[MARKER_MAX]; /* of what is in force; "": nothing was read yet */
	pthread_mutex_t lock; /* changes, and with it what is put in force; never held over I/O */
	uint64_t changes;     /* revocations made and taken back here */
	uint64_t loaded;      /* of them, before the last load; the loader's own */
};

struct identities *identities_new(struct auth *auth, const char *url, bool prepare, int interrupt)
{
	struct identities *i = xcalloc(1, sizeof *i);

	i->auth = auth;
	i->scratch = auth_new();
	i->url = xstrdup(url);
	i->prepare = prepare;
	i->interrupt = interrupt;
	pthread_mutex_init(&i->lock, NULL);
	return i;
}

void identities_free(struct identities **ip)
{
	struct identities *i = *ip;

	*ip = NULL;
	if (!i)
		return;
	conn_free(&i->conn);
	auth_free(&i->scratch);
	pthread_mutex_destroy(&i->lock);
	free(i->url);
	free(i);
}

/* ---- asking -------------------------------------------------------------------------- */

/* A refusal by the database as an errno. */
static int refusal(const struct pg_result *r)
{
	const char *sqlstate = conn_sqlstate(r);

	if (!*sqlstate)
		return 0;
	if (strcmp(sqlstate, "42P01") == 0 || strcmp(sqlstate, "3F000") == 0)
		return -ENOENT;
	return strcmp(sqlstate, "42501") == 0 ? -EACCES : -EIO;
}

/* Of reading; what was refused, or why nothing came. */
static int explain(int r, const struct pg_result *result, struct errors *errs)
{
	const char *message =
	    result ? PQresultErrorField((const PGresult *)result, PG_DIAG_MESSAGE_PRIMARY) : NULL;

	switch (r) {
	case -ECANCELED:
		return r;
	case -ENOENT:
		errors_add(errs, NULL, 0,
		           "API keys and revocations cannot be read, because the schema `provost` "
		           "is not in the "
		           "database: run "
		           "`provost schema install` as the owner of the database");
		return r;
	case -EACCES:
		errors_add(
		    errs, NULL, 0,
		    "this role may not read API keys and revocations (%s): as the owner of the "
		    "database, run what `provost grants print` prints",
		    message ? message : "permission denied");
		return r;
	case -EIO:
		errors_add(errs, NULL, 0, "API keys and revocations cannot be read: %s",
		           message ? message : "no reason given");
		return -EINVAL;
	default:
		errors_add(errs, NULL, 0,
		           "API keys and revocations cannot be read: the database %s",
		           r == -ETIMEDOUT ? "did not answer in time" : "went away");
		return -ENOTCONN;
	}
}

static int ask(struct conn *c, const char *sql, uint64_t deadline_us, struct pg_result **ret,
               struct errors *errs)
{
	int r = conn_command(c, sql, deadline_us, ret);

	if (r == 0)
		r = refusal(*ret);
	if (r < 0)
		r = explain(r, *ret, errs);
	return r;
}

/* The connection is kept as long as it is good. */
static int connect_to(struct identities *i, uint64_t deadline_us, struct errors *errs)
{
	size_t before = errors_count(errs);

	if (i->conn && conn_condition(i->conn) != CONN_CLEAN)
		conn_free(&i->conn);
	if (!i->conn)
		i->conn = conn_open(i->url, i->prepare, i->interrupt, deadline_us, errs);
	if (i->conn)
		return 0;
	return errors_count(errs) > before ? -ENOTCONN : -ECANCELED;
}

static uint64_t deadline(void)
{
	return clock_us() + IDENTITIES_WAIT_MS * UINT64_C(1000);
}

/* ---- what has changed ---------------------------------------------------------------- */

static const char MARKER[] =
    "/* provost */ SELECT"
    " (SELECT md5(coalesce(string_agg(k::text, chr(10) ORDER BY id), '')) FROM provost.api_key k) "
    "||"
    " (SELECT md5(coalesce(string_agg(r::text, chr(10) ORDER BY kind, what), ''))"
    " FROM provost.revocation r)";

int identities_check(const char *url, bool prepare, uint64_t deadline_us, struct errors *errs)
{
	_cleanup_conn_ struct conn *c = conn_open(url, prepare, -1, deadline_us, errs);
	_cleanup_result_ struct pg_result *result = NULL;

	return c ? ask(c, MARKER, deadline_us, &result, errs) : -ENOTCONN;
}

/* ---- keys ---------------------------------------------------------------------------- */

static const char KEYS[] =
    /* clang-format off */
    "/* provost */ SELECT id, encode(digest, 'hex'), subject, array_to_string(roles, chr(10)),"
    " least(greatest(floor(extract(epoch FROM created_at)), 0), 1e12)::bigint,"
    " CASE WHEN expires_at IS NULL OR expires_at = 'infinity' THEN 0"
    "  ELSE greatest(floor(extract(epoch FROM expires_at)), 1) END::bigint,"
    " revoked_at IS NOT NULL FROM provost.api_key ORDER BY id";
/* clang-format on */

static void take_roles(struct strlist *l, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, (const char[]){ROLE_SEPARATOR, '\0'});
		strlist_add(l, text, n);
		text += n;
		text += *text != '\0';
	}
}

/* False: not a key. */
static bool take_key(const PGresult *r, int row, struct apikey *k)
{
	const char *id = PQgetvalue(r, row, 0), *digest = PQgetvalue(r, row, 1);

	*k = (struct apikey){.subject = xstrdup(PQgetvalue(r, row, 2))};
	if (!apikey_id_valid(id, strlen(id)) ||
	    apikey_digest_parse(digest, strlen(digest), k->digest) < 0)
		return false;
	memcpy(k->id, id, APIKEY_ID_LEN + 1);
	take_roles(&k->roles, PQgetvalue(r, row, 3));
	k->created_s = strtoll(PQgetvalue(r, row, 4), NULL, 10);
	k->expires_s = strtoll(PQgetvalue(r, row, 5), NULL, 10);
	k->revoked = *PQgetvalue(r, row, 6) == 't';
	return true;
}

/* One that the library refuses would have all refused: those that are not sound are moved behind
 * the others. How many are sound. */
static size_t sift_keys(struct auth *scratch, struct apikey *list, size_t n, struct errors *errs)
{
	size_t kept = 0;

	for (size_t k = 0; k < n; k++) {
		_cleanup_errors_ struct errors *why = errors_new();

		if (auth_keys_set(scratch, &list[k], 1, why) == 0) {
			struct apikey sound = list[k];

			list[k] = list[kept];
			list[kept++] = sound;
		} else {
			errors_add(errs, NULL, 0, "left out: %s", errors_text(why, 0));
		}
	}
	(void)!auth_keys_set(scratch, NULL, 0, errs);
	return kept;
}

static int put_keys(struct identities *i, const PGresult *r, struct errors *errs)
{
	size_t n = 0, rows = (size_t)PQntuples(r);
	_cleanup_free_ struct apikey *list = xcalloc(rows + 1, sizeof *list);
	_cleanup_errors_ struct errors *why = errors_new();

	for (int row = 0; row < (int)rows; row++) {
		if (take_key(r, row, &list[n])) {
			n++;
			continue;
		}
		apikey_done(&list[n]);
		errors_add(errs, NULL, 0, "left out: a row of provost.api_key is not an API key");
	}
	int err = auth_keys_set(i->auth, list, n, why);
	if (err < 0)
		err = auth_keys_set(i->auth, list, sift_keys(i->scratch, list, n, errs), errs);
	for (size_t k = 0; k < n; k++)
		apikey_done(&list[k]);
	return err;
}

/* ---- revocations --------------------------------------------------------------------- */

static const char REVOCATIONS[] =
    /* clang-format off */
    "/* provost */ SELECT kind, what,"
    " CASE WHEN issued_before IS NULL OR issued_before = 'infinity' THEN 9223372036854775807"
    "  ELSE greatest(floor(extract(epoch FROM issued_before)), -1e12) END::bigint,"
    " CASE WHEN until IS NULL OR until = 'infinity' THEN 0"
    "  ELSE greatest(ceil(extract(epoch FROM until)), 1) END::bigint"
    " FROM provost.revocation ORDER BY kind, what";
/* clang-format on */

static const char *kind_name(enum revocation_kind k)
{
	return k == REVOKE_TOKEN ? "token" : "subject";
}

static bool is_revocation(struct auth *scratch, const struct revocation *v)
{
	_cleanup_errors_ struct errors *why = errors_new();

	return auth_revocations_set(scratch, v, 1, why) == 0;
}

/* How many are sound; those come first. */
static size_t sift_revocations(struct auth *scratch, struct revocation *list, size_t n,
                               struct errors *errs)
{
	size_t kept = 0;

	for (size_t k = 0; k < n; k++) {
		if (is_revocation(scratch, &list[k]))
			list[kept++] = list[k];
		else
			errors_add(errs, NULL, 0, "left out: a revocation of a %s is malformed",
			           kind_name(list[k].kind));
	}
	return kept;
}

/* 1. What was revoked here since `changes` was read may be missing in these rows: then they are not
 * put in force, and the next load reads anew: 0. */
static int put_revocations(struct identities *i, const PGresult *r, uint64_t changes,
                           struct errors *errs)
{
	size_t n = (size_t)PQntuples(r);
	_cleanup_free_ struct revocation *list = xcalloc(n + 1, sizeof *list);
	_cleanup_errors_ struct errors *why = errors_new();
	bool current;
	int err = 0;

	for (int row = 0; row < (int)n; row++)
		list[row] = (struct revocation){
		    .kind = *PQgetvalue(r, row, 0) == 't' ? REVOKE_TOKEN : REVOKE_SUBJECT,
		    .what = PQgetvalue(r, row, 1),
		    .issued_before_s = strtoll(PQgetvalue(r, row, 2), NULL, 10),
		    .until_s = strtoll(PQgetvalue(r, row, 3), NULL, 10),
		};
	pthread_mutex_lock(&i->lock);
	current = i->changes == changes;
	if (current && auth_revocations_set(i->auth, list, n, why) < 0)
		err = auth_revocations_set(i->auth, list,
		                           sift_revocations(i->scratch, list, n, errs), errs);
	pthread_mutex_unlock(&i->lock);
	return err < 0 ? err : current;
}

/* ---- loading ------------------------------------------------------------------------- */

static int load(struct identities *i, uint64_t deadline_us, struct errors *errs)
{
	_cleanup_result_ struct pg_result *marker = NULL, *keys = NULL, *revocations = NULL;
	const char *now;
	uint64_t changes;
	int r;

	pthread_mutex_lock(&i->lock);
	changes = i->changes;
	pthread_mutex_unlock(&i->lock);
	/* Before the rows: what changes in between is seen by the next load. */
	r = ask(i->conn, MARKER, deadline_us, &marker, errs);
	if (r < 0)
		return r;
	now = PQgetvalue((const PGresult *)marker, 0, 0);
	/* Two changes of one name at the same time may have come here in another order than to the
	 * database: after any change its rows are put in force once more. */
	if (strcmp(now, i->marker) == 0 && i->loaded == changes)
		return 0;
	r = ask(i->conn, KEYS, deadline_us, &keys, errs);
	if (r == 0)
		r = ask(i->conn, REVOCATIONS, deadline_us, &revocations, errs);
	if (r < 0)
		return r;
	/* Refused as a whole: what was in force stays, and the next load tries again. */
	if (put_keys(i, (const PGresult *)keys, errs) < 0)
		return -EINVAL;
	r = put_revocations(i, (const PGresult *)revocations, changes, errs);
	if (r < 0)
		return -EINVAL;
	if (r > 0) {
		snprintf(i->marker, sizeof i->marker, "%s", now);
		i->loaded = changes;
	}
	return 1;
}

int identities_load(struct identities *i, struct errors *errs)
{
	uint64_t deadline_us = deadline();
	int r = connect_to(i, deadline_us, errs);

	if (r == 0)
		r = load(i, deadline_us, errs);
	/* What was still to come must not be taken for the answer to the next question. */
	if (i->conn && conn_condition(i->conn) != CONN_CLEAN)
		conn_free(&i->conn);
	return r;
}

/* ---- changing ------------------------------------------------------------------------ */

enum { OID_TEXT = 25, VALUES_MAX = 5 };

/* A statement that writes, in a transaction of its own: sessions are read-only otherwise. Ends as
 * conn_run, or with a refusal; `*ret_rows`: how many rows it concerned. A connection that is left
 * inside the transaction is of no further use, and whoever takes it back sees that. */
static int write_rows(struct conn *c, const char *sql, size_t n, const char *const *values,
                      uint64_t deadline_us, unsigned long *ret_rows)
{
	pg_oid oid[VALUES_MAX] = {OID_TEXT, OID_TEXT, OID_TEXT, OID_TEXT, OID_TEXT};
	struct stmt s = {
	    .sql = (char *)(uintptr_t)sql, .sql_len = strlen(sql), .binds = n, .oid = oid};
	_cleanup_result_ struct pg_result *begin = NULL, *done = NULL, *end = NULL;
	int r, refused;

	ALWAYS(n <= VALUES_MAX);
	stmt_seal(&s);
	r = conn_command(c, "/* provost */ BEGIN READ WRITE", deadline_us, &begin);
	if (r == 0)
		r = refusal(begin);
	if (r < 0)
		return r;
	r = conn_run(c, &s, values, deadline_us, NULL, &done);
	if (r < 0)
		return r;
	refused = refusal(done);
	r = conn_command(c, refused ? "/* provost */ ROLLBACK" : "/* provost */ COMMIT",
	                 deadline_us, &end);
	if (r < 0)
		return r;
	if (refused == 0)
		refused = refusal(end);
	if (refused == 0)
		*ret_rows = strtoul(PQcmdTuples((PGresult *)done), NULL, 10);
	return refused;
}

static const char REVOKE[] =
    /* clang-format off */
    "/* provost */ INSERT INTO provost.revocation AS r (kind, what, issued_before, until, created_by)"
    " VALUES ($1, $2, CASE WHEN $1 = 'subject' THEN coalesce(to_timestamp($3::bigint), 'infinity') END,"
    " to_timestamp($4::bigint), $5)"
    " ON CONFLICT (kind, what) DO UPDATE SET"
    " issued_before = greatest(r.issued_before, excluded.issued_before),"
    " until = CASE WHEN r.until IS NOT NULL AND excluded.until IS NOT NULL"
    "  THEN greatest(r.until, excluded.until) END,"
    " created_at = now(), created_by = excluded.created_by";
/* clang-format on */

/* What the library would refuse must not get into the database first. */
static int check(struct identities *i, const struct revocation *v)
{
	struct auth_stats stats;

	if (!is_revocation(i->scratch, v))
		return -EINVAL;
	auth_stats(i->auth, &stats);
	return stats.revocations < AUTH_REVOCATIONS_MAX ? 0 : -ENOSPC;
}

int identities_revoke(struct identities *i, struct conn *c, const struct revocation *v,
                      const char *by, uint64_t deadline_us)
{
	_cleanup_free_ char *before = v->issued_before_s == INT64_MAX
	                                  ? NULL
	                                  : xasprintf("%lld", (long long)v->issued_before_s);
	_cleanup_free_ char *until =
	    v->until_s == 0 ? NULL : xasprintf("%lld", (long long)v->until_s);
	const char *const values[] = {kind_name(v->kind), v->what, before, until, by};
	unsigned long rows;
	int r = check(i, v);

	if (r == 0)
		r = write_rows(c, REVOKE, ELEMENTSOF(values), values, deadline_us, &rows);
	if (r < 0)
		return r;
	pthread_mutex_lock(&i->lock);
	i->changes++;
	r = auth_revoke(i->auth, v);
	pthread_mutex_unlock(&i->lock);
	return r;
}

int identities_unrevoke(struct identities *i, struct conn *c, enum revocation_kind kind,
                        const char *what, uint64_t deadline_us)
{
	const char *const values[] = {kind_name(kind), what};
	unsigned long rows = 0;
	int r = write_rows(
	    c, "/* provost */ DELETE FROM provost.revocation WHERE kind = $1 AND what = $2",
	    ELEMENTSOF(values), values, deadline_us, &rows);

	if (r < 0)
		return r;
	pthread_mutex_lock(&i->lock);
	i->changes++;
	r = auth_unrevoke(i->auth, kind, what);
	pthread_mutex_unlock(&i->lock);
	return rows > 0 ? 0 : r;
}

/* Those that a key would be good again without stay, as in auth_revocations_purge. */
static const char PURGE[] =
    /* clang-format off */
    "/* provost */ DELETE FROM provost.revocation r WHERE r.until <= to_timestamp($1::bigint)"
    " AND NOT EXISTS (SELECT FROM provost.api_key k WHERE k.revoked_at IS NULL"
    "  AND (k.expires_at IS NULL OR k.expires_at > now())"
    "  AND (r.kind = 'token' AND k.id = r.what"
    "   OR r.kind = 'subject' AND k.subject = r.what AND k.created_at <= r.issued_before))";
/* clang-format on */

int identities_purge(struct identities *i, int64_t now_s, struct errors *errs)
{
	int64_t before_s = now_s - IDENTITIES_PURGE_MARGIN_S;
	_cleanup_free_ char *before = xasprintf("%lld", (long long)before_s);
	const char *const values[] = {before};
	uint64_t deadline_us = deadline();
	unsigned long rows;
	int r;

	if (auth_revocations_purge(i->auth, before_s) == 0)
		return 0;
	r = connect_to(i, deadline_us, errs);
	if (r < 0)
		return r;
	r = write_rows(i->conn, PURGE, 1, values, deadline_us, &rows);
	if (r < 0)
		r = explain(r, NULL, errs);
	if (conn_condition(i->conn) != CONN_CLEAN)
		conn_free(&i->conn);
	return r;
}
