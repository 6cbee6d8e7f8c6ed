/*
 * endpoint: one SQL file, parsed.
 *
 * An endpoint file begins with comment lines; those that begin with `@` are directives, the others
 * its description; the rest is one statement in which `:name` is a parameter. endpoint_parse turns
 * the text into this structure and knows no database, no HTTP and no files. What only PostgreSQL
 * can tell (the result's columns) is filled in by engine/describe.
 *
 * A struct endpoint is built by one thread, described by one thread, and immutable from the moment
 * its catalogue is published; then any thread may read it.
 */
#ifndef PROVOST_ENDPOINT_H
#define PROVOST_ENDPOINT_H

#include <stdatomic.h>

#include "provost/errors.h"
#include "provost/freshness.h"
#include "provost/stmt.h"
#include "provost/strlist.h"

enum {
	ENDPOINT_FILE_MAX = 1 << 20, /* bytes of one file */
	ENDPOINT_PARAMS_MAX = 128,
	ENDPOINT_PARAM_NAME_MAX = 63, /* bytes */
	ENDPOINT_MEMBERS_MAX = 64,    /* of one `json[] {…}` */
	ENDPOINT_ENUM_MAX = 256,
	ENDPOINT_DEPENDS_MAX = 256,
	ENDPOINT_PATH_SEGMENTS_MAX = 32,
};

enum method { METHOD_GET, METHOD_POST, METHOD_PUT, METHOD_PATCH, METHOD_DELETE, METHOD_COUNT };
const char *method_name(enum method m);
/* -EINVAL for any other name; methods are case-sensitive (RFC 9110, section 9.1). */
int method_parse(const char *s, size_t n) _must_check_;

enum param_in { IN_PATH, IN_QUERY, IN_BODY };
const char *param_in_name(enum param_in in); /* "path", "query", "body" */

enum param_type {
	TYPE_TEXT,
	TYPE_INTEGER,
	TYPE_BIGINT,
	TYPE_NUMBER,
	TYPE_NUMERIC,
	TYPE_BOOLEAN,
	TYPE_UUID,
	TYPE_DATE,
	TYPE_TIMESTAMP,
	TYPE_JSON,
};
const char *param_type_name(enum param_type t); /* as the directive spells it */

/* A bound on what the type counts: code points (text), elements (arrays), else the value itself.
 * Bytes are never counted. */
struct param_bound {
	bool set;
	uint64_t count; /* text and arrays */
	char *text;     /* the normal form of the bound; what values are compared with */
};

struct param {
	char *name;
	enum param_in in;
	enum param_type type;
	bool array;
	bool required; /* always for IN_PATH */
	bool trim, upper, lower;
	struct param_bound min, max;
	struct strlist enumeration; /* empty: anything */
	char *default_value; /* PostgreSQL text in its normal form (arrays: the literal), or NULL */
	struct param *member; /* IN_BODY json[] {…}: the members of each object */
	size_t members;
	unsigned line;
	bool used; /* the SQL names it */
};

enum returns { RETURNS_UNSET, RETURNS_JSON, RETURNS_ROWS, RETURNS_ROW, RETURNS_NONE };
const char *returns_name(enum returns r);

/* @cache; -1 where the file is silent. */
struct cache_policy {
	bool off;
	bool set; /* a @cache line stands in the file */
	int64_t ttl_ms, swr_ms, max_stale_ms, stale_if_error_ms;
	struct strlist tags;
	bool vary_sub, vary_role, vary_claims;
};

/* One entry of @depends. */
struct depend {
	char *table;  /* as written, perhaps schema-qualified */
	bool exclude; /* !TABLE */
	char *column; /* NULL: the whole table */
	char *param;  /* the parameter it is narrowed by */
	unsigned line;
};

/* What an answer is made from, found by engine/describe: a table, or some rows of it. */
struct dependency {
	char *table;  /* as tags name it: `course`, in another schema than public `shop.course` */
	char *column; /* NULL: the whole table; else the rows where it equals the parameter */
	size_t param; /* with column: index of the parameter, whose type is the column's */
	pg_oid oid;   /* the table's */
};

/* What tables were found through, and may be replaced: a view, a table with its policies, or a
 * function. */
struct way {
	pg_oid oid;
	bool routine; /* a function */
	char *name;
	uint64_t digest; /* of what it means, as engine/ways has it */
};

/* One piece of a route: literal text (decoded) or a parameter's name. */
struct segment {
	char *text;
	bool param;
};

struct endpoint {
	char *name; /* `courses/get` */
	char *file; /* for messages */
	char *description;
	enum method method;
	char *route; /* as written: `/api/admin/courses/:id` */
	struct segment *segment;
	size_t segments;
	struct strlist roles; /* as written; compared without case */
	bool is_public;
	struct param *param; /* in the order of declaration */
	size_t params;
	enum returns returns; /* RETURNS_UNSET until described when not declared */
	unsigned status;
	struct cache_policy cache;
	struct depend *depend;
	size_t depends;
	struct freshness freshness; /* in force: set by the catalogue's loader from all sources */
	struct dependency *dependency; /* all of them, once described */
	size_t dependencies;
	struct way *way; /* through which they were found */
	size_t ways;
	char *opaque; /* why the dependencies are not all known: neither cached nor collapsed; NULL:
	                 they are */
	atomic_bool uncovered; /* changes of one of its tables are not told, or a way is another
	                          than it was loaded with: as opaque, while it lasts. The one field
	                          that changes once it is served (coverage.h) */
	uint64_t fingerprint;  /* of the file's text and, once described, of all else an answer's
	                          meaning depends on */
	char *key_prefix;      /* key.h */
	size_t key_prefix_len;
	int64_t timeout_ms; /* -1: the configured statement_timeout */
	unsigned route_line, sql_line;
	unsigned auth_line; /* where the SQL first names the caller (:auth_…); 0: nowhere */
	struct stmt stmt;   /* the statement, `:name` rewritten to `$n` */
};

/* Whether its answers depend on who is calling. */
static inline bool endpoint_varies(const struct endpoint *e)
{
	return e->cache.vary_sub || e->cache.vary_role || e->cache.vary_claims;
}

/* Whether it has parameters of the body, so that one is read. */
static inline bool endpoint_has_body(const struct endpoint *e)
{
	for (size_t i = 0; i < e->params; i++)
		if (e->param[i].in == IN_BODY)
			return true;
	return false;
}

/* Whether its statement asks for `:body`. */
static inline bool endpoint_binds_body(const struct endpoint *e)
{
	for (size_t i = 0; i < e->stmt.binds; i++)
		if (e->stmt.bind[i].source == BIND_BODY)
			return true;
	return false;
}

/* Whether requests for the same key share one fill, and whether its answers are stored. Acquire:
 * what was stored until then is raised by whoever clears `uncovered`, before that. */
static inline bool endpoint_is_collapsed(const struct endpoint *e)
{
	return e->method == METHOD_GET && !e->opaque &&
	       !atomic_load_explicit(&e->uncovered, memory_order_acquire);
}
static inline bool endpoint_is_cached(const struct endpoint *e)
{
	return !e->cache.off && endpoint_is_collapsed(e);
}

/* Parses the text of one file. `name` and `file` are copied. NULL when anything was wrong; every
 * error of the file is appended, not just the first. */
struct endpoint *endpoint_parse(const char *name, const char *file, const char *text, size_t len,
                                struct errors *errs);
void endpoint_free(struct endpoint **e);
#define _cleanup_endpoint_ _cleanup_(endpoint_free)

/* The parameter of that name, or NULL. */
const struct param *endpoint_param(const struct endpoint *e, const char *name);

/* The line of the file in which byte `pos` (from 0) of stmt.sql stands; the last for one behind the
 * end. PostgreSQL counts characters from 1. */
unsigned endpoint_sql_line(const struct endpoint *e, size_t pos);

#endif
