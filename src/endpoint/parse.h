/*
 * parse: what the readers of one endpoint file share. Internal to src/endpoint.
 *
 * Load time only: out of memory exits. A reader reports what is wrong at its line and goes on, so
 * that all errors of a file are shown at once; endpoint_parse counts them at the end.
 */
#ifndef PROVOST_ENDPOINT_PARSE_H
#define PROVOST_ENDPOINT_PARSE_H

#include <string.h>

#include "provost/values.h"

struct parse {
	struct endpoint *e;
	struct errors *errs;
	unsigned line;      /* of the directive being read */
	unsigned seen;      /* bit per directive of the table in directive.c */
	unsigned lines[16]; /* where each was seen first */
};

/* An error at the line being read. */
#define parse_error(ps, ...) errors_add((ps)->errs, (ps)->e->file, (ps)->line, __VA_ARGS__)

/* For %.*s: what an author wrote, cut where it would flood a terminal. */
#define SHOW_MAX 60
#define SHOW(s)  (int)MIN((s).n, (size_t)SHOW_MAX), (s).p

static inline bool slice_is(struct slice s, const char *word)
{
	return strlen(word) == s.n && memcmp(s.p, word, s.n) == 0;
}

static inline bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* What is left of a directive's line. */
struct cursor {
	const char *p, *end;
};

void cursor_skip_blanks(struct cursor *c);
/* Up to the next blank or any of `stop`; empty at the end. Skips blanks before it. */
struct slice cursor_word(struct cursor *c, const char *stop);
/* Skips blanks; takes `ch` if it comes next. */
bool cursor_take(struct cursor *c, char ch);
bool cursor_at_end(struct cursor *c);

/* One `NAME` or `NAME=VALUE`; a value may be quoted as in SQL. */
struct option {
	struct slice name;
	bool has_value;
	char *value; /* unquoted, owned by the caller */
};

/* 1: an option; 0: the end, or one of `stop` comes next; -EINVAL, reported. */
int option_take(struct parse *ps, struct cursor *c, const char *stop,
                struct option *ret) _must_check_;
void option_done(struct option *o);
#define _cleanup_option_ _cleanup_(option_done)

/* [A-Za-z_][A-Za-z0-9_]*, at most ENDPOINT_PARAM_NAME_MAX bytes. */
bool is_param_name(struct slice s);

/* A comma-separated list of words to `to`; each passes `valid` or is reported as a bad `what`. */
void list_read(struct parse *ps, const char *what, const char *text, bool (*valid)(struct slice),
               struct strlist *to);

/* A duration within [min_ms, max_ms], or an error that names the `what`. */
void duration_read(struct parse *ps, const char *what, const char *text, int64_t min_ms,
                   int64_t max_ms, int64_t *ret_ms);

int param_type_parse(struct slice s) _must_check_;
int returns_parse(struct slice s) _must_check_;

/* One directive, from behind its `@`. */
void directive_read(struct parse *ps, struct cursor c);
/* Whether a line of SQL begins as a directive of ours would: one that stands too late. */
bool directive_is_known(struct slice name);
/* What can be told only when all directives are read. */
void directives_finish(struct parse *ps);

/* `@path`, `@query`, `@body`: one parameter, from behind the directive's name. */
void param_read(struct parse *ps, struct cursor *c, enum param_in in);
void param_done(struct param *p);

/* `@route METHOD /path`. */
void route_read(struct parse *ps, struct cursor *c);
void route_finish(struct parse *ps);

/* `@depends`, `@cache`. */
void depends_read(struct parse *ps, struct cursor *c);
void depends_finish(struct parse *ps);
void cache_read(struct parse *ps, struct cursor *c);

/* The SQL from `text` on, whose first line is e->sql_line: finds the parameters, numbers them. */
void sql_read(struct parse *ps, const char *text, size_t len);

#endif
