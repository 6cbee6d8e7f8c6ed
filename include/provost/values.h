/*
 * values: one request's parameters, checked and normalised.
 *
 * Path segments and the query string come in raw (split before decoding), the body as JSON; what
 * comes out is, per declared parameter, PostgreSQL's text for it or NULL, the form in which it is
 * bound and in which it joins a key: equal requests give equal values. All that is wrong is
 * reported at once.
 *
 * A struct values belongs to one request at a time; bytes live in its own arena, bounded by the
 * sizes of target and body. Its memory is kept from one request to the next, up to VALUES_KEEP_MAX,
 * so that reading allocates nothing once it has seen a request as large.
 */
#ifndef PROVOST_VALUES_H
#define PROVOST_VALUES_H

#include "provost/buf.h"
#include "provost/endpoint.h"

enum {
	VALUES_REASON_MAX = 160,
	VALUES_NAME_MAX = 160, /* bytes of a name in an error; longer ones are cut */
	VALUES_ERRORS_MAX = 64,
	VALUES_PAIRS_MAX = 1024,   /* of one query string */
	VALUES_JSON_DEPTH = 32,    /* of one json value */
	VALUES_NUMERIC_MAX = 1000, /* digits before and behind the point */
	VALUES_KEEP_MAX = 16384,   /* bytes kept between requests, all together */
};

/* One entry of a problem document's `errors`. */
struct value_error {
	/* The declared parameter's, the undeclared member's as it was sent, or a place within one:
	 * `prices[3].week`, counted from 0. "" for the whole query or body. */
	char name[VALUES_NAME_MAX];
	enum param_in in;
	char reason[VALUES_REASON_MAX];
};

/* A slice of the raw target. */
struct slice {
	const char *p;
	size_t n;
};

/* A pair of the query string whose name is declared. */
struct values_pair {
	size_t param;
	struct slice value; /* raw */
};

struct values {
	struct buf arena;
	ptrdiff_t *offset; /* per endpoint->param: into the arena, or -1 for NULL */
	size_t count;
	struct value_error *error;
	size_t errors;   /* at most VALUES_ERRORS_MAX are kept */
	struct buf body; /* values_body */

	/* While reading, and room for the next time. */
	struct buf decoded, element;
	struct values_pair *pair;
	size_t offset_cap, error_cap, pair_cap;
};

/* Empties `v` for the next request. Results of the last one are no longer valid. */
void values_reset(struct values *v);
/* Frees what it holds, and zeroes it. */
void values_done(struct values *v);

/* Fills `v` (zeroed or reset) for the endpoint's path and query parameters. `path` holds the
 * raw segment of each path parameter, in the order they stand in the route. 0; -EINVAL with
 * v->errors when the request is at fault; -ENOMEM. Parameters of the body stay NULL. */
int values_read(struct values *v, const struct endpoint *e, const struct slice *path, size_t paths,
                struct slice query) _must_check_;

/* After values_read, whatever it returned but -ENOMEM: reads the members of the body. One JSON
 * object (RFC 8259, strictly); each member of its type, without conversions: a text is a string, an
 * integer a number without point or exponent, a boolean true or false; uuid, date and timestamp are
 * strings; an array is an array, without nulls; json is anything. null is NULL, also where there is
 * a default. Undeclared and repeated members are errors. Of `NAME json[] {…}` the value is one
 * jsonb text, in which members that were left out have their defaults. Returns as values_read:
 * -EINVAL when there is any error, those of path and query included. */
int values_read_body(struct values *v, const struct endpoint *e, struct slice body) _must_check_;

/* Whether what is wrong is in the body's members alone: it is JSON and an object, and path and
 * query are good. */
bool values_only_members_wrong(const struct values *v);

/* What `:body` is bound to: a JSON object of the members that were sent, normalised; those that
 * were left out are absent, whatever their default, and null is null. NULL where the statement
 * does not ask for it. Valid as what values_get returns. */
const char *values_body(const struct values *v);

/* The value of the i-th parameter as NUL-terminated text, or NULL. Valid until values_reset or
 * values_done. */
const char *values_get(const struct values *v, size_t i);

/* Checks and normalises one raw text (already decoded, `n` bytes) by the parameter's rules,
 * appending the normal form to `out` without a NUL: what values_read, defaults and bodies share.
 * Normalising a normal form gives itself. -EINVAL with a sentence in `reason` (valid UTF-8, never
 * the value itself); -ENOMEM when `out` is full. `out` keeps its length on failure. Of an array,
 * min and max are left out: they count elements, and this is one. */
int value_normalise(const struct param *p, const char *s, size_t n, struct buf *out,
                    char reason[VALUES_REASON_MAX]) _must_check_;

/* Keeps an error, but for one that is there already (same name and place) or one too many. `n`
 * bytes of valid UTF-8 at `name`. */
int values_report(struct values *v, const char *name, size_t n, enum param_in in,
                  const char reason[VALUES_REASON_MAX]) _must_check_;

/* Percent-decodes `in` (RFC 3986, section 2.1) to the end of `out`; `plus`: `+` is a blank. -EINVAL
 * for a broken escape, -EILSEQ for what is not UTF-8 or holds a NUL, -ENOMEM; `out` keeps its
 * length then. */
int percent_decode(struct slice in, bool plus, struct buf *out) _must_check_;

#endif
