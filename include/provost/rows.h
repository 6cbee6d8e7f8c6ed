/*
 * rows: a result set as JSON, column types kept.
 *
 * Numbers and booleans are JSON's own, json and jsonb go in as they are, arrays of PostgreSQL's own
 * types become arrays, timestamps RFC 3339, everything else a string; NULL is null. Not-a-number
 * and infinities are strings, as PostgreSQL's own to_json has them. Pure; text-format results of
 * UTF-8 sessions only.
 */
#ifndef PROVOST_ROWS_H
#define PROVOST_ROWS_H

#include "provost/buf.h"

struct pg_result;

/* Row `row` as an object. */
void rows_object(const struct pg_result *r, int row, struct buf *out);
/* One value of PostgreSQL type `oid` in text form. */
void rows_value(uint32_t oid, const char *text, size_t len, struct buf *out);

#endif
