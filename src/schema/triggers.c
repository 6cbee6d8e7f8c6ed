#include "triggers.h"

#include <errno.h>
#include <string.h>

#include "../engine/discover.h"
#include "../engine/needs.h"
#include "admin.h"
#include "tellings.h"
#include "triggers_impl.h"

static const char unread[] = "the triggers cannot be read";

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
	if (admin_run(a, unread, "/* provost */ BEGIN", errs) < 0 ||
	    admin_run(a, unread, ADMIN_USERS_PATH, errs) < 0)
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

PGresult *triggers_ask(struct admin *a, const char *sql, const struct needs *n, struct errors *errs)
{
	_cleanup_free_ char *tables = needs_tables(n), *columns = needs_columns(n);
	const char *const values[] = {tables, columns};

	return admin_query(a, unread, sql, 2, values, errs);
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

int triggers_supported(struct admin *a, const struct needs *n, struct needs *ret, FILE *notes,
                       struct errors *errs)
{
	_cleanup_pgresult_ PGresult *r = triggers_ask(a, coverage_sql, n, errs);
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

/* ---- what would be installed --------------------------------------------------------- */

int triggers_print(struct admin *a, const struct needs *n, FILE *to, FILE *notes,
                   struct errors *errs)
{
	_cleanup_needs_ struct needs supported = {0};
	_cleanup_tellings_ struct tellings l = {0};

	if (triggers_supported(a, n, &supported, notes, errs) < 0 ||
	    tellings_read(a, &supported, &l, errs) < 0)
		return -EINVAL;
	tellings_forget_what_is_there(&l);
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
	_cleanup_pgresult_ PGresult *r = admin_query(a, unread, OTHERS, 1, values, errs);

	for (int i = 0; r && i < PQntuples(r); i++)
		needs_add(ret, (pg_oid)strtoul(PQgetvalue(r, i, 0), NULL, 10), NULL);
	return r ? 0 : -EINVAL;
}

static int print_status(struct admin *a, const struct needs *n, const char *suffix, FILE *to,
                        bool *ret_good, struct errors *errs)
{
	_cleanup_pgresult_ PGresult *r = triggers_ask(a, coverage_sql, n, errs);
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
