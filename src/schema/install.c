#include <errno.h>
#include <string.h>
#include <time.h>

#include "../engine/discover.h"
#include "../engine/needs.h"
#include "admin.h"
#include "tellings.h"
#include "triggers.h"
#include "triggers_impl.h"

enum { TRIES = 10, TRY_AGAIN_MS = 200 };

/* Two commands at once would replace each other's functions. Locks are waited for more briefly than
 * PostgreSQL takes to look for deadlocks (deadlock_timeout, 1 s): of the two it is never the writer
 * who fails. */
static const char BEGIN[] = "/* provost */ BEGIN READ WRITE;"
                            " SET LOCAL client_min_messages = warning;"
                            " SELECT pg_advisory_xact_lock(7237128888997146478);"
                            " SET LOCAL lock_timeout = '500ms'";
static const char EPOCH[] = "/* provost */ SELECT pg_notify('provost', 'epoch')";

/* Functions that no trigger calls any more: of tables that were dropped or renamed. */
static const char SWEEP[] =
    /* clang-format off */
    "/* provost */ DO $$ DECLARE f record; BEGIN"
    " FOR f IN SELECT p.oid::regprocedure AS name FROM pg_proc p"
    "  WHERE p.pronamespace = 'provost'::regnamespace AND p.proname ~ '^changed_[0-9a-f]{16}$'"
    "  AND p.pronargs = 0 AND pg_has_role(p.proowner, 'USAGE')"
    "  AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgfoid = p.oid)"
    " LOOP EXECUTE format('DROP FUNCTION %s', f.name); END LOOP; END $$";
/* clang-format on */

/* ---- a transaction, again where a table is in use ------------------------------------- */

struct alteration {
	struct admin *admin;
	const char *what; /* it is that cannot be done */
	/* Within the transaction; -EAGAIN: a table is in use, or gone. */
	int (*alter)(struct alteration *w, struct errors *errs);

	const struct needs *needs; /* to install */
	struct tellings tellings;
	bool *changed; /* of each */

	const char *trees; /* to remove */
	PGresult *found;

	/* Of the latest try. */
	const char *name, *sql; /* of the table that it came to */
	bool any;               /* something was changed */
	bool last;
};

static void forget_try(struct alteration *w)
{
	tellings_done(&w->tellings);
	free(w->changed);
	w->changed = NULL;
	admin_clear(&w->found);
	w->any = false;
}
#define _cleanup_alteration_ _cleanup_(forget_try)

static bool is_in_use(const char *sqlstate)
{
	return !strcmp(sqlstate, "55P03") || !strcmp(sqlstate, "40P01");
}

/* The table, its schema, or a trigger. */
static bool is_gone(const char *sqlstate)
{
	return !strcmp(sqlstate, "42P01") || !strcmp(sqlstate, "3F000") ||
	       !strcmp(sqlstate, "42704");
}

/* Statements about a table. */
static int run(struct alteration *w, const char *name, const char *sql, const char *statements,
               struct errors *errs)
{
	PGresult *r = PQexec(w->admin->pg, statements);
	ExecStatusType s = PQresultStatus(r);
	const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	int err = s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK ? 0 : -EINVAL;

	w->name = name;
	w->sql = sql;
	if (err && state && (is_in_use(state) || (is_gone(state) && !w->last)))
		err = -EAGAIN;
	if (err == -EINVAL)
		errors_add(errs, NULL, 0, "%s: table %s: %s", w->what, name,
		           message ? message : PQerrorMessage(w->admin->pg));
	PQclear(r);
	return err;
}

static int transact(struct alteration *w, struct errors *errs)
{
	int r = admin_run(w->admin, w->what, BEGIN, errs);

	if (r == 0)
		r = w->alter(w, errs);
	if (r == 0)
		r = admin_run(w->admin, w->what, SWEEP, errs);
	/* Where all is as it was nothing was missed. */
	if (r == 0 && w->any)
		r = admin_run(w->admin, w->what, EPOCH, errs);
	if (r == 0)
		r = admin_run(w->admin, w->what, "COMMIT", errs);
	if (r < 0)
		PQclear(PQexec(w->admin->pg, "ROLLBACK"));
	return r;
}

/* Who holds what we waited for. */
static const char HOLDERS[] =
    /* clang-format off */
    "/* provost */ SELECT format('process %s (%s, %s) holds it, for %s s so far',"
    "  l.pid, coalesce(nullif(s.application_name, ''), 'unnamed'), s.usename,"
    "  extract(epoch FROM clock_timestamp() - s.xact_start)::int)"
    " FROM pg_locks l JOIN pg_stat_activity s USING (pid)"
    " WHERE l.relation = to_regclass($1) AND l.granted AND l.database ="
    "  (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND l.pid <> pg_backend_pid()"
    " ORDER BY s.xact_start LIMIT 1";
/* clang-format on */

static int refuse_locked(struct alteration *w, struct errors *errs)
{
	const char *const values[] = {w->sql};
	_cleanup_pgresult_ PGresult *r = admin_query(w->admin, w->what, HOLDERS, 1, values, errs);

	errors_add(errs, NULL, 0,
	           "table %s was in use all the time%s%s: nothing was changed; try again when what "
	           "writes to it has ended",
	           w->name, r && PQntuples(r) ? ": " : "",
	           r && PQntuples(r) ? PQgetvalue(r, 0, 0) : "");
	return -EINVAL;
}

static int perform(struct alteration *w, struct errors *errs)
{
	const struct timespec pause = {.tv_nsec = TRY_AGAIN_MS * 1000000};

	for (int i = 1; i <= TRIES; i++) {
		forget_try(w);
		w->last = i == TRIES;
		int r = transact(w, errs);
		if (r != -EAGAIN)
			return r;
		nanosleep(&pause, NULL);
	}
	return refuse_locked(w, errs);
}

static const char RIGHTS[] =
    "/* provost */ SELECT to_regnamespace('provost') IS NOT NULL,"
    " coalesce(has_schema_privilege(to_regnamespace('provost'), 'CREATE'), false), current_user,"
    " (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'provost')";

static int check_schema(struct admin *a, const char *what, struct errors *errs)
{
	_cleanup_pgresult_ PGresult *r = admin_query(a, what, RIGHTS, 0, NULL, errs);

	if (!r)
		return -EINVAL;
	if (*PQgetvalue(r, 0, 0) != 't')
		errors_add(errs, NULL, 0,
		           "%s: the schema `provost` is not in the database: run `provost schema "
		           "install` first",
		           what);
	else if (*PQgetvalue(r, 0, 1) != 't')
		errors_add(errs, NULL, 0,
		           "%s: the role `%s` may not create functions in the schema `provost`: "
		           "run this as its owner, `%s`",
		           what, PQgetvalue(r, 0, 2), PQgetvalue(r, 0, 3));
	else
		return 0;
	return -EINVAL;
}

/* ---- installing ---------------------------------------------------------------------- */

/* Only the owner can have triggers fire always. */
static int check_owners(const struct tellings *l, struct errors *errs)
{
	bool all = true;

	for (size_t i = 0; i < l->n; i++) {
		const struct telling *t = &l->telling[i];
		if (t->may)
			continue;
		errors_add(errs, NULL, 0,
		           "table %s belongs to the role `%s`: run this as that role, or as one "
		           "that is a member of it or a superuser",
		           t->name, t->owner);
		all = false;
	}
	return all ? 0 : -EINVAL;
}

static int install_one(struct alteration *w, const struct telling *t, bool *ret_changed,
                       struct errors *errs)
{
	_cleanup_buf_ struct buf b = {0};

	telling_install(t, &b);
	*ret_changed = b.len > 0;
	if (b.len == 0)
		return 0;
	buf_addc(&b, '\0');
	ALWAYS(!b.failed);
	return run(w, t->name, t->sql, b.data, errs);
}

static int install(struct alteration *w, struct errors *errs)
{
	struct tellings *l = &w->tellings;
	int r = tellings_read(w->admin, w->needs, l, errs);

	if (r == 0)
		r = check_owners(l, errs);
	w->changed = xcalloc(l->n + 1, sizeof *w->changed);
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		r = install_one(w, &l->telling[i], &w->changed[i], errs);
		w->any |= w->changed[i];
	}
	return r;
}

static void print_columns(FILE *to, const struct told *d)
{
	for (size_t i = 0; i < d->columns; i++)
		fprintf(to, "%s%s", i ? ", " : "; tells ", d->column[i].name);
}

static void print_outcome(FILE *to, const struct alteration *w)
{
	const struct tellings *l = &w->tellings;

	for (size_t i = 0, end; i < l->n; i = end) {
		const struct telling *root = &l->telling[i];
		size_t fresh = 0, changed = 0;
		for (end = i; end < l->n && !strcmp(l->telling[end].told[0].tag, root->told[0].tag);
		     end++) {
			fresh += !l->telling[end].source && w->changed[end];
			changed += w->changed[end];
		}
		fprintf(to, "%s: %s", root->told[0].tag,
		        fresh == end - i ? "installed"
		        : changed        ? "updated"
		                         : "up to date");
		if (end - i > 1)
			fprintf(to, ", on %zu of %zu tables", changed, end - i);
		print_columns(to, &root->told[0]);
		fputc('\n', to);
	}
}

int triggers_install(struct admin *a, const struct needs *n, FILE *to, FILE *notes,
                     struct errors *errs)
{
	_cleanup_needs_ struct needs supported = {0};
	_cleanup_alteration_ struct alteration w = {.admin = a,
	                                            .what = "the triggers cannot be installed",
	                                            .alter = install,
	                                            .needs = &supported};

	if (check_schema(a, w.what, errs) < 0 ||
	    triggers_supported(a, n, &supported, notes, errs) < 0 || perform(&w, errs) < 0)
		return -EINVAL;
	print_outcome(to, &w);
	return 0;
}

/* ---- removing ------------------------------------------------------------------------ */

/* $1: the trees (NULL: all). One row per table: its name, and the statements. DROP TRIGGER by
 * itself takes a lesser lock before it waits for its own, and of two who want more than they have
 * it is the other who fails. */
static const char REMOVE[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE tree (member) AS ("
    " SELECT unnest($1::oid[]) UNION"
    " SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.member)"
    " SELECT " SQL_TAG_NAME ", format('%I.%I', n.nspname, c.relname),"
    "  format('LOCK ONLY %I.%I IN ACCESS EXCLUSIVE MODE; ', n.nspname, c.relname)"
    "  || string_agg(format('DROP TRIGGER %I ON %I.%I;', g.tgname, n.nspname, c.relname), ' ')"
    " FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid"
    " JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE p.pronamespace = to_regnamespace('provost') AND p.proname ~ '^changed_[0-9a-f]{16}$'"
    " AND NOT g.tgisinternal AND ($1 IS NULL OR c.oid IN (SELECT member FROM tree))"
    " GROUP BY n.nspname, c.relname ORDER BY 1";
/* clang-format on */

static int remove_all(struct alteration *w, struct errors *errs)
{
	const char *const values[] = {w->trees};
	const PGresult *r = w->found = admin_query(w->admin, w->what, REMOVE, 1, values, errs);
	int err = r ? 0 : -EINVAL;

	for (int i = 0; err == 0 && i < PQntuples(r); i++)
		err = run(w, PQgetvalue(r, i, 0), PQgetvalue(r, i, 1), PQgetvalue(r, i, 2), errs);
	w->any = r && PQntuples(r) > 0;
	return err;
}

int triggers_remove(struct admin *a, const struct needs *n, FILE *to, struct errors *errs)
{
	_cleanup_free_ char *trees = n ? needs_tables(n) : NULL;
	_cleanup_alteration_ struct alteration w = {.admin = a,
	                                            .what = "the triggers cannot be removed",
	                                            .alter = remove_all,
	                                            .trees = trees};

	if (check_schema(a, w.what, errs) < 0 || perform(&w, errs) < 0)
		return -EINVAL;
	for (int i = 0; i < PQntuples(w.found); i++)
		fprintf(to, "%s: removed\n", PQgetvalue(w.found, i, 0));
	return 0;
}
