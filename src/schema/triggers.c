#include "triggers.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "../engine/discover.h"
#include "../engine/needs.h"
#include "admin.h"
#include "telling.h"

extern const char triggers_sql[];

/* The columns of the result of triggers.sql. */
enum {
	T_MEMBER,
	T_NAME,
	T_SQL,
	T_FUNCTION,
	T_SOURCE,
	T_TRIGGER,
	T_MAY = T_TRIGGER + TELLING_TRIGGERS,
	T_OWNER,
	T_TAG,
	T_TAG_JSON,
	T_COLUMN,
	T_COLUMN_IDENT,
	T_COLUMN_JSON,
	T_COLUMN_KEY,
};

enum { TRIES = 10, TRY_AGAIN_MS = 200 };

static const char what[] = "the triggers cannot be installed";

/* Two commands at once would replace each other's functions. Locks are waited for more briefly than
 * PostgreSQL takes to look for deadlocks (deadlock_timeout, 1 s): of the two it is never the writer
 * who fails. */
static const char BEGIN[] = "/* provost */ BEGIN READ WRITE;"
                            " SET LOCAL client_min_messages = warning;"
                            " SELECT pg_advisory_xact_lock(7237128888997146478);"
                            " SET LOCAL lock_timeout = '500ms'";
static const char EPOCH[] = "/* provost */ SELECT pg_notify('provost', 'epoch')";

/* ---- which tables -------------------------------------------------------------------- */

static const char NAMED[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE entry AS ("
    " SELECT $1::text AS name, to_regclass($1)::oid AS oid"
    "), " SQL_ROOTS("entry")
    " SELECT DISTINCT root.oid, c.relkind IN ('r', 'p', 'f', 'm', 'S') AND NOT " SQL_IS_SYSTEM
    " FROM root JOIN pg_catalog.pg_class c ON c.oid = root.oid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
/* clang-format on */

static int add_named(struct admin *a, const char *name, struct needs *n, struct errors *errs)
{
	_cleanup_free_ char *in = xasprintf("table %s", name);
	const char *const values[] = {name};
	_cleanup_pgresult_ PGresult *r = admin_query(a, in, NAMED, 1, values, errs);

	if (!r)
		return -EINVAL;
	for (int i = 0; i < PQntuples(r); i++) {
		if (*PQgetvalue(r, i, 1) != 't') {
			errors_add(errs, NULL, 0, "%s: only tables can have these triggers", name);
			return -EINVAL;
		}
		needs_add(n, (pg_oid)strtoul(PQgetvalue(r, i, 0), NULL, 10), NULL);
	}
	if (PQntuples(r) > 0)
		return 0;
	errors_add(errs, NULL, 0,
	           "there is no table %s; write it as SQL does, with its schema where search_path "
	           "does not lead to it: shop.course, '\"Order\"'",
	           name);
	return -EINVAL;
}

int triggers_name(struct admin *a, const struct strlist *names, struct needs *n,
                  struct errors *errs)
{
	int bad = 0;

	if (names->count == 0)
		return 0;
	if (admin_run(a, what, "/* provost */ BEGIN", errs) < 0 ||
	    admin_run(a, what, ADMIN_USERS_PATH, errs) < 0)
		return -EINVAL;
	for (size_t i = 0; i < names->count; i++) {
		/* A refused name ends the transaction, and what follows it says nothing. */
		if (PQtransactionStatus(a->pg) == PQTRANS_INTRANS)
			bad |= add_named(a, names->item[i], n, errs);
	}
	PQclear(PQexec(a->pg, "/* provost */ ROLLBACK"));
	return bad ? -EINVAL : 0;
}

/* ---- how they stand ------------------------------------------------------------------ */

static PGresult *ask(struct admin *a, const char *sql, const struct needs *n, struct errors *errs)
{
	_cleanup_free_ char *tables = needs_tables(n), *columns = needs_columns(n);
	const char *const values[] = {tables, columns};

	return admin_query(a, "the triggers cannot be read", sql, 2, values, errs);
}

static pg_oid root_of(const PGresult *r, int i)
{
	return (pg_oid)strtoul(PQgetvalue(r, i, COVERAGE_ROOT), NULL, 10);
}

static bool is_unsupported(const PGresult *r, int i)
{
	return strcmp(PQgetvalue(r, i, COVERAGE_KIND), "unsupported") == 0;
}

/* Behind the rows of the tree that begins at `i`; `*ret_worst`: the member that is to be told of.
 */
static int tree_end(const PGresult *r, int i, int *ret_worst)
{
	int k = i;

	*ret_worst = i;
	for (; k < PQntuples(r) && root_of(r, k) == root_of(r, i); k++)
		if (is_unsupported(r, k) || (PQgetisnull(r, *ret_worst, COVERAGE_KIND) &&
		                             !PQgetisnull(r, k, COVERAGE_KIND)))
			*ret_worst = k;
	return k;
}

static void print_member(FILE *to, const PGresult *r, int root, int member)
{
	fprintf(to, "%s: %s: %s%s%s\n", PQgetvalue(r, root, COVERAGE_NAME),
	        PQgetvalue(r, member, COVERAGE_KIND),
	        member != root ? PQgetvalue(r, member, COVERAGE_NAME) : "it", " ",
	        PQgetvalue(r, member, COVERAGE_WHY));
}

/* Those of `n` that can have triggers; of the others it is said why they cannot. */
static int select_supported(struct admin *a, const struct needs *n, struct needs *ret, FILE *notes,
                            struct errors *errs)
{
	_cleanup_pgresult_ PGresult *r = ask(a, coverage_sql, n, errs);
	int worst;

	if (!r)
		return -EINVAL;
	for (int i = 0, end; i < PQntuples(r); i = end) {
		end = tree_end(r, i, &worst);
		if (is_unsupported(r, worst)) {
			print_member(notes, r, i, worst);
			continue;
		}
		for (size_t k = 0; k < n->n; k++)
			if (n->need[k].table == root_of(r, i))
				needs_add(ret, n->need[k].table, n->need[k].column);
	}
	return 0;
}

/* ---- what is to be told -------------------------------------------------------------- */

struct tellings {
	PGresult *rows;
	struct telling *telling;
	size_t n;
};

static void tellings_done(struct tellings *l)
{
	for (size_t i = 0; i < l->n; i++)
		telling_done(&l->telling[i]);
	free(l->telling);
	PQclear(l->rows);
	*l = (struct tellings){0};
}
#define _cleanup_tellings_ _cleanup_(tellings_done)

static const char *text_at(const PGresult *r, int i, int column)
{
	return PQgetisnull(r, i, column) ? NULL : PQgetvalue(r, i, column);
}

static struct telling *add_telling(struct tellings *l, const PGresult *r, int i)
{
	l->telling = xrealloc(l->telling, l->n + 1, sizeof *l->telling);
	struct telling *t = &l->telling[l->n++];
	*t = (struct telling){
	    .name = PQgetvalue(r, i, T_NAME),
	    .sql = PQgetvalue(r, i, T_SQL),
	    .function = PQgetvalue(r, i, T_FUNCTION),
	    .source = text_at(r, i, T_SOURCE),
	    .owner = PQgetvalue(r, i, T_OWNER),
	    .may = *PQgetvalue(r, i, T_MAY) == 't',
	};
	for (int k = 0; k < TELLING_TRIGGERS; k++)
		t->trigger[k] = text_at(r, i, T_TRIGGER + k);
	return t;
}

static struct told *add_told(struct telling *t, const PGresult *r, int i)
{
	t->told = xrealloc(t->told, t->tolds + 1, sizeof *t->told);
	struct told *d = &t->told[t->tolds++];
	*d = (struct told){.tag = PQgetvalue(r, i, T_TAG), .json = PQgetvalue(r, i, T_TAG_JSON)};
	return d;
}

static void add_column(struct told *d, const PGresult *r, int i)
{
	d->column = xrealloc(d->column, d->columns + 1, sizeof *d->column);
	d->column[d->columns++] = (struct told_column){
	    .name = PQgetvalue(r, i, T_COLUMN),
	    .ident = PQgetvalue(r, i, T_COLUMN_IDENT),
	    .json = PQgetvalue(r, i, T_COLUMN_JSON),
	    .key = *PQgetvalue(r, i, T_COLUMN_KEY) == 't',
	};
}

static int read_tellings(struct admin *a, const struct needs *n, struct tellings *ret,
                         struct errors *errs)
{
	PGresult *r = ret->rows = ask(a, triggers_sql, n, errs);
	struct telling *t = NULL;
	struct told *d = NULL;

	for (int i = 0; r && i < PQntuples(r); i++) {
		bool first = i == 0 || strcmp(PQgetvalue(r, i, T_MEMBER),
		                              PQgetvalue(r, i - 1, T_MEMBER)) != 0;
		if (first)
			t = add_telling(ret, r, i);
		if (first || strcmp(d->tag, PQgetvalue(r, i, T_TAG)) != 0)
			d = add_told(t, r, i);
		if (!PQgetisnull(r, i, T_COLUMN))
			add_column(d, r, i);
	}
	return r ? 0 : -EINVAL;
}

/* As if there were nothing yet. */
static void forget_what_is_there(struct tellings *l)
{
	for (size_t i = 0; i < l->n; i++) {
		l->telling[i].source = NULL;
		memset(l->telling[i].trigger, 0, sizeof l->telling[i].trigger);
	}
}

/* ---- installing ---------------------------------------------------------------------- */

static const char RIGHTS[] =
    "/* provost */ SELECT to_regnamespace('provost') IS NOT NULL,"
    " coalesce(has_schema_privilege(to_regnamespace('provost'), 'CREATE'), false), current_user,"
    " (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'provost')";

static int check_schema(struct admin *a, struct errors *errs)
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

static int refuse_locked(struct admin *a, const struct telling *t, struct errors *errs)
{
	const char *const values[] = {t->sql};
	_cleanup_pgresult_ PGresult *r = admin_query(a, what, HOLDERS, 1, values, errs);

	errors_add(errs, NULL, 0,
	           "table %s was in use all the time%s%s: nothing was changed; try again when what "
	           "writes to it has ended",
	           t->name, r && PQntuples(r) ? ": " : "",
	           r && PQntuples(r) ? PQgetvalue(r, 0, 0) : "");
	return -EINVAL;
}

/* -EAGAIN: the table is in use. */
static int run(struct admin *a, const struct telling *t, const char *sql, struct errors *errs)
{
	PGresult *r = PQexec(a->pg, sql);
	ExecStatusType s = PQresultStatus(r);
	const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	int err = s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK ? 0 : -EINVAL;

	if (err && state && (!strcmp(state, "55P03") || !strcmp(state, "40P01")))
		err = -EAGAIN;
	if (err == -EINVAL) {
		const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
		errors_add(errs, NULL, 0, "the triggers of table %s cannot be installed: %s",
		           t->name, message ? message : PQerrorMessage(a->pg));
	}
	PQclear(r);
	return err;
}

static int install_one(struct admin *a, const struct telling *t, bool *ret_changed,
                       struct errors *errs)
{
	_cleanup_buf_ struct buf b = {0};

	telling_install(t, &b);
	*ret_changed = b.len > 0;
	if (b.len == 0)
		return 0;
	buf_addc(&b, '\0');
	ALWAYS(!b.failed);
	return run(a, t, b.data, errs);
}

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

struct outcome {
	struct tellings tellings;
	bool *changed; /* of each */
};

static void outcome_done(struct outcome *o)
{
	tellings_done(&o->tellings);
	free(o->changed);
	*o = (struct outcome){0};
}

/* One try. -EAGAIN with `*ret_at`, the table in use. */
static int try(struct admin *a, const struct needs *n, struct outcome *o, size_t *ret_at,
               struct errors *errs)
{
	struct tellings *l = &o->tellings;
	int r = admin_run(a, what, BEGIN, errs);

	if (r == 0)
		r = read_tellings(a, n, l, errs);
	if (r == 0)
		r = check_owners(l, errs);
	o->changed = xcalloc(l->n + 1, sizeof *o->changed);
	bool any = false;
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		*ret_at = i;
		r = install_one(a, &l->telling[i], &o->changed[i], errs);
		any |= o->changed[i];
	}
	if (r == 0)
		r = admin_run(a, what, SWEEP, errs);
	/* Where all is as it was nothing was missed. */
	if (r == 0 && any)
		r = admin_run(a, what, EPOCH, errs);
	if (r == 0)
		r = admin_run(a, what, "COMMIT", errs);
	if (r < 0)
		PQclear(PQexec(a->pg, "ROLLBACK"));
	return r;
}

static int install(struct admin *a, const struct needs *n, struct outcome *o, struct errors *errs)
{
	const struct timespec pause = {.tv_nsec = TRY_AGAIN_MS * 1000000};
	size_t at = 0;

	for (int i = 0; i < TRIES; i++) {
		outcome_done(o);
		int r = try(a, n, o, &at, errs);
		if (r != -EAGAIN)
			return r;
		nanosleep(&pause, NULL);
	}
	return refuse_locked(a, &o->tellings.telling[at], errs);
}

static void print_columns(FILE *to, const struct told *d)
{
	for (size_t i = 0; i < d->columns; i++)
		fprintf(to, "%s%s", i ? ", " : "; tells ", d->column[i].name);
}

/* The members of a tree stand together, its topmost table first. */
static void print_outcome(FILE *to, const struct outcome *o)
{
	const struct tellings *l = &o->tellings;

	for (size_t i = 0, end; i < l->n; i = end) {
		const struct telling *root = &l->telling[i];
		size_t fresh = 0, changed = 0;
		for (end = i; end < l->n && !strcmp(l->telling[end].told[0].tag, root->told[0].tag);
		     end++) {
			fresh += !l->telling[end].source && o->changed[end];
			changed += o->changed[end];
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
	_cleanup_(outcome_done) struct outcome o = {0};

	if (check_schema(a, errs) < 0 || select_supported(a, n, &supported, notes, errs) < 0 ||
	    install(a, &supported, &o, errs) < 0)
		return -EINVAL;
	print_outcome(to, &o);
	return 0;
}

int triggers_print(struct admin *a, const struct needs *n, FILE *to, FILE *notes,
                   struct errors *errs)
{
	_cleanup_needs_ struct needs supported = {0};
	_cleanup_tellings_ struct tellings l = {0};

	if (select_supported(a, n, &supported, notes, errs) < 0 ||
	    read_tellings(a, &supported, &l, errs) < 0)
		return -EINVAL;
	forget_what_is_there(&l);
	fputs("-- What `provost triggers install` does where nothing is installed.\nBEGIN;\n", to);
	for (size_t i = 0; i < l.n; i++) {
		_cleanup_buf_ struct buf b = {0};
		telling_install(&l.telling[i], &b);
		ALWAYS(!b.failed);
		fprintf(to, "\n-- %s\n%.*s", l.telling[i].name, (int)b.len, b.data);
	}
	fputs("\nSELECT pg_notify('provost', 'epoch');\nCOMMIT;\n", to);
	return 0;
}

/* ---- removing ------------------------------------------------------------------------ */

/* $1: the trees (NULL: all). One row per table: its name, and the statements. */
static const char REMOVE[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE tree (member) AS ("
    " SELECT unnest($1::oid[]) UNION"
    " SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.member)"
    " SELECT " SQL_TAG_NAME ", format('%I.%I', n.nspname, c.relname),"
    "  string_agg(format('DROP TRIGGER %I ON %I.%I;', g.tgname, n.nspname, c.relname), ' ')"
    " FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid"
    " JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE p.pronamespace = to_regnamespace('provost') AND p.proname ~ '^changed_[0-9a-f]{16}$'"
    " AND NOT g.tgisinternal AND ($1 IS NULL OR c.oid IN (SELECT member FROM tree))"
    " GROUP BY n.nspname, c.relname ORDER BY 1";
/* clang-format on */

static int try_remove(struct admin *a, const char *tables, PGresult **ret, int *ret_at,
                      struct errors *errs)
{
	const char *const values[] = {tables};
	int r = admin_run(a, what, BEGIN, errs);

	if (r == 0)
		*ret = admin_query(a, "the triggers cannot be removed", REMOVE, 1, values, errs);
	if (!*ret)
		r = -EINVAL;
	for (int i = 0; r == 0 && i < PQntuples(*ret); i++) {
		struct telling t = {.name = PQgetvalue(*ret, i, 0), .sql = PQgetvalue(*ret, i, 1)};
		*ret_at = i;
		r = run(a, &t, PQgetvalue(*ret, i, 2), errs);
	}
	if (r == 0)
		r = admin_run(a, what, SWEEP, errs);
	if (r == 0 && PQntuples(*ret) > 0)
		r = admin_run(a, what, EPOCH, errs);
	if (r == 0)
		r = admin_run(a, what, "COMMIT", errs);
	if (r < 0)
		PQclear(PQexec(a->pg, "ROLLBACK"));
	return r;
}

int triggers_remove(struct admin *a, const struct needs *n, FILE *to, struct errors *errs)
{
	const struct timespec pause = {.tv_nsec = TRY_AGAIN_MS * 1000000};
	_cleanup_free_ char *tables = n ? needs_tables(n) : NULL;
	_cleanup_pgresult_ PGresult *found = NULL;
	int at = 0, r = check_schema(a, errs);

	for (int i = 0; r == 0 && i < TRIES; i++) {
		admin_clear(&found);
		r = try_remove(a, tables, &found, &at, errs);
		if (r != -EAGAIN)
			break;
		nanosleep(&pause, NULL);
		if (i < TRIES - 1)
			r = 0;
	}
	if (r == -EAGAIN) {
		struct telling t = {.name = PQgetvalue(found, at, 0),
		                    .sql = PQgetvalue(found, at, 1)};
		return refuse_locked(a, &t, errs);
	}
	for (int i = 0; r == 0 && i < PQntuples(found); i++)
		fprintf(to, "%s: removed\n", PQgetvalue(found, i, 0));
	return r;
}

/* ---- status -------------------------------------------------------------------------- */

/* Tables that have triggers, though nobody said that they need them. $1: the needed ones. */
static const char OTHERS[] =
    /* clang-format off */
    "/* provost */ WITH RECURSIVE entry (oid) AS ("
    " SELECT DISTINCT g.tgrelid FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid"
    " WHERE p.pronamespace = to_regnamespace('provost') AND p.proname ~ '^changed_[0-9a-f]{16}$'"
    "), " SQL_ROOTS("entry")
    " SELECT DISTINCT oid FROM root WHERE oid <> ALL ($1::oid[]) ORDER BY 1";
/* clang-format on */

static int add_others(struct admin *a, const struct needs *n, struct needs *ret,
                      struct errors *errs)
{
	_cleanup_free_ char *tables = needs_tables(n);
	const char *const values[] = {tables};
	_cleanup_pgresult_ PGresult *r =
	    admin_query(a, "the triggers cannot be read", OTHERS, 1, values, errs);

	for (int i = 0; r && i < PQntuples(r); i++)
		needs_add(ret, (pg_oid)strtoul(PQgetvalue(r, i, 0), NULL, 10), NULL);
	return r ? 0 : -EINVAL;
}

static int print_status(struct admin *a, const struct needs *n, const char *suffix, FILE *to,
                        bool *ret_good, struct errors *errs)
{
	_cleanup_pgresult_ PGresult *r = ask(a, coverage_sql, n, errs);
	int worst;

	for (int i = 0, end; r && i < PQntuples(r); i = end) {
		end = tree_end(r, i, &worst);
		if (PQgetisnull(r, worst, COVERAGE_KIND)) {
			fprintf(to, "%s: installed%s\n", PQgetvalue(r, i, COVERAGE_NAME), suffix);
			continue;
		}
		print_member(to, r, i, worst);
		*ret_good = false;
	}
	return r ? 0 : -EINVAL;
}

int triggers_status(struct admin *a, const struct needs *n, FILE *to, bool *ret_good,
                    struct errors *errs)
{
	_cleanup_needs_ struct needs others = {0};
	bool ignored = true;

	*ret_good = true;
	if (print_status(a, n, "", to, ret_good, errs) < 0 || add_others(a, n, &others, errs) < 0 ||
	    others.n == 0)
		return errors_count(errs) ? -EINVAL : 0;
	return print_status(a, &others, ", though no endpoint needs them", to, &ignored, errs);
}
