/*
 * scan: finds `:name` in SQL the way PostgreSQL's own scanner would see it.
 *
 * Skips string constants (standard_conforming_strings), E'' strings, U&'' strings, B'' X'' N'',
 * dollar quotes, `--` and nested block comments, quoted identifiers, `::casts`, `:=`, and slices:
 * directly inside [] a colon after an operand is a slice, otherwise a parameter. Follows
 * PostgreSQL 15's scan.l. Pure; bounded by its input; no recursion.
 */
#ifndef PROVOST_SCAN_H
#define PROVOST_SCAN_H

#include "provost/base.h"

struct scan_param {
	size_t start; /* of the colon */
	size_t end;   /* behind the name */
};

enum { SCAN_NESTING_MAX = 256 }; /* of brackets */

struct scan_result {
	struct scan_param *param;
	size_t params;
	size_t end; /* behind the last token: trailing blanks, comments and one `;` are left out */
};

void scan_result_done(struct scan_result *r);

/* -EINVAL with `*ret_pos` and a sentence in `*ret_why` (static) for: an unterminated quote or
 * comment, a second statement behind `;`, an empty statement, a NUL byte, a `$1`, a name that runs
 * on into `$` or a letter beyond ASCII, brackets nested deeper than SCAN_NESTING_MAX. `ret` is
 * untouched then. */
int scan_sql(const char *sql, size_t len, struct scan_result *ret, size_t *ret_pos,
             const char **ret_why) _must_check_;

#endif
