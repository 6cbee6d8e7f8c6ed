/*
 * value: the normal forms of the parameter types, one function each. Internal to src/endpoint.
 *
 * Each takes `n` decoded bytes and appends the normal form to `out`; -EINVAL with a sentence that
 * begins with "must" in `*ret_why` (static), and nothing appended. Normalising a normal form gives
 * itself; equal values have equal forms, which is what makes them fit for cache keys. Pure; no
 * allocation but `out`'s. A full `out` shows in out->failed alone.
 */
#ifndef PROVOST_ENDPOINT_VALUE_H
#define PROVOST_ENDPOINT_VALUE_H

#include "provost/values.h"

/* Any type but text. */
int value_canonical(enum param_type t, const char *s, size_t n, struct buf *out,
                    const char **ret_why) _must_check_;

/* Order of two normal forms of one type that has an order; <0, 0, >0. */
int value_compare(enum param_type t, struct slice a, struct slice b);

/* Types that have an order, hence min and max of their own. */
bool value_has_order(enum param_type t);

/* text: trim, then case; `ret_length` gets the code points of what is appended. */
int text_canonical(const struct param *p, const char *s, size_t n, struct buf *out,
                   size_t *ret_length, const char **ret_why) _must_check_;
/* The text without the blanks around it; valid UTF-8 only. */
struct slice text_trim(struct slice s);
void utf8_add(struct buf *out, uint32_t code_point);

int numeric_canonical(const char *s, size_t n, struct buf *out, const char **ret_why) _must_check_;
int numeric_compare(struct slice a, struct slice b);

int date_canonical(const char *s, size_t n, struct buf *out, const char **ret_why) _must_check_;
int timestamp_canonical(const char *s, size_t n, struct buf *out,
                        const char **ret_why) _must_check_;

int json_canonical(const char *s, size_t n, struct buf *out, const char **ret_why) _must_check_;

/* ---- JSON without a tree: json.c, jsonpart.c ----------------------------------------- */

/* Whether the bytes are one JSON text. What its strings and numbers hold is not looked at: that is
 * for whoever takes them out, and can name them. */
int json_check(struct slice s, const char **ret_why) _must_check_;

enum json_kind {
	JSON_NULL,
	JSON_BOOLEAN,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};
/* "a number", for sentences. */
const char *json_kind_name(enum json_kind k);

/* All of these are for what json_check has passed. A value is its text from the first byte to the
 * last, without blanks around it. */
struct slice json_value(struct slice text);
enum json_kind json_kind_of(struct slice value);
/* What stands between the brackets of an array or object, for the functions below. */
struct slice json_inside(struct slice value);
/* Takes the next element, or member with the string that names it; false: there is none. */
bool json_next(struct slice *rest, struct slice *ret);
bool json_next_member(struct slice *rest, struct slice *ret_name, struct slice *ret);
/* Appends what a string stands for. */
int json_decode(struct slice value, struct buf *out, const char **ret_why) _must_check_;

/* A sentence for people, cut between characters where it is too long. */
void reason_set(char reason[VALUES_REASON_MAX], const char *fmt, ...) _printf_(2, 3);

/* Whether the request leaves the parameter out with this raw (decoded) text. */
bool value_is_absent(const struct param *p, const char *s, size_t n);

/* One PostgreSQL array literal, element by element. */
void array_begin(struct buf *out);
void array_add(enum param_type t, const char *s, size_t n, bool first, struct buf *out);
void array_end(struct buf *out);
/* min and max of an array count its elements. */
int array_check_count(const struct param *p, size_t count,
                      char reason[VALUES_REASON_MAX]) _must_check_;

/* PostgreSQL's type of a parameter. */
pg_oid param_oid(const struct param *p);

#endif
