/*
 * The rules are those of PostgreSQL 15's src/backend/parser/scan.l; each function below says which.
 * Only what decides where a token ends matters here: values are never looked at.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "provost/scan.h"

struct scanner {
	const char *sql;
	size_t len;
	size_t pos;
	struct scan_result out;
	size_t params_cap;
	char open[SCAN_NESTING_MAX]; /* the brackets that are open, innermost last */
	size_t depth;
	bool operand;    /* the last token ends an operand: a colon behind it, in [], is a slice */
	bool time;       /* the last token is the word TIME, as in AT TIME ZONE */
	bool after_time; /* and the one before this token was */
	bool finished;   /* behind the `;` */
	const char *why;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

static bool is_newline(char c)
{
	return c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* dolq_start and ident_start: a letter, `_` or any byte above 0x7F. */
static bool is_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}

/* dolq_cont. */
static bool is_tag(char c)
{
	return is_start(c) || is_digit(c);
}

/* ident_cont. */
static bool is_cont(char c)
{
	return is_tag(c) || c == '$';
}

static bool is_name(char c)
{
	return is_tag(c) && !(c & 0x80);
}

static char at(const struct scanner *s, size_t pos)
{
	return pos < s->len ? s->sql[pos] : '\0';
}

static int fail(struct scanner *s, size_t pos, const char *why)
{
	s->pos = pos;
	s->why = why;
	return -EINVAL;
}

/* `--` up to the end of the line; CR ends it too. */
static void line_comment(struct scanner *s)
{
	while (s->pos < s->len && !is_newline(s->sql[s->pos]))
		s->pos++;
}

/* xcstart, xcstop: comments nest. */
static int block_comment(struct scanner *s)
{
	size_t start = s->pos, depth = 0;

	while (s->pos + 1 < s->len) {
		const char *p = s->sql + s->pos;

		if (p[0] == '/' && p[1] == '*') {
			depth++;
			s->pos += 2;
		} else if (p[0] == '*' && p[1] == '/') {
			s->pos += 2;
			if (--depth == 0)
				return 0;
		} else {
			s->pos++;
		}
	}
	return fail(s, start, "a /* comment is not closed");
}

/* quotecontinue: behind a closing quote, blanks and line comments with at least one newline among
 * them, and another quote, go on with the same constant in the same mode. */
static bool string_continues(struct scanner *s)
{
	size_t pos = s->pos;
	bool newline = false;

	for (;;) {
		if (is_space(at(s, pos))) {
			newline |= is_newline(s->sql[pos]);
			pos++;
		} else if (at(s, pos) == '-' && at(s, pos + 1) == '-') {
			while (pos < s->len && !is_newline(s->sql[pos]))
				pos++;
		} else {
			break;
		}
	}
	if (!newline || at(s, pos) != '\'')
		return false;
	s->pos = pos + 1;
	return true;
}

/* From behind the opening quote. A doubled quote stands for one; only E'' knows the backslash. */
static int string_constant(struct scanner *s, size_t start, bool escapes)
{
	while (s->pos < s->len) {
		char c = s->sql[s->pos++];

		if (escapes && c == '\\' && s->pos < s->len)
			s->pos++;
		else if (c != '\'')
			continue;
		else if (at(s, s->pos) == '\'')
			s->pos++;
		else if (!string_continues(s))
			return 0;
	}
	return fail(s, start, "a string constant is not closed");
}

static int quoted_identifier(struct scanner *s, size_t start)
{
	while (s->pos < s->len) {
		if (s->sql[s->pos++] != '"')
			continue;
		if (at(s, s->pos) != '"')
			return 0;
		s->pos++;
	}
	return fail(s, start, "a quoted identifier is not closed");
}

/* dolqdelim: `$$` or `$tag$`, up to the first same delimiter. Anything else that begins with `$` is
 * a parameter's number, which would mix with ours, or a stray character for PostgreSQL to refuse.
 */
static int dollar(struct scanner *s)
{
	size_t start = s->pos, end = start + 1;
	const char *close;

	if (is_digit(at(s, end)))
		return fail(s, start, "parameters have names here: write :name, not $1");
	if (is_start(at(s, end)))
		while (is_tag(at(s, end)))
			end++;
	if (at(s, end) != '$') {
		s->pos++;
		return 0;
	}
	end++;
	close = memmem(s->sql + end, s->len - end, s->sql + start, end - start);
	if (!close)
		return fail(s, start, "a dollar-quoted string is not closed");
	s->pos = (size_t)(close - s->sql) + (end - start);
	s->operand = true;
	return 0;
}

/* Whether `w` is a word behind which an expression begins, so that a colon is no slice: as in
 * ARRAY[CASE WHEN :a THEN :b END]. All are reserved but ZONE, which counts behind TIME only. */
static bool begins_expression(const struct scanner *s, const char *w, size_t n)
{
	static const char *const words[] = {
	    "all",      "and",    "any",     "asymmetric", "between", "case",  "distinct",
	    "else",     "escape", "fetch",   "from",       "having",  "ilike", "in",
	    "is",       "like",   "limit",   "not",        "offset",  "on",    "or",
	    "select",   "some",   "similar", "symmetric",  "then",    "to",    "using",
	    "variadic", "when",   "where",   "with",
	};

	for (size_t i = 0; i < ELEMENTSOF(words); i++)
		if (strlen(words[i]) == n && strncasecmp(words[i], w, n) == 0)
			return true;
	return s->after_time && n == 4 && strncasecmp(w, "zone", 4) == 0;
}

/* identifier, and the prefixes E'' U&'' U&"" B'' X'' N'', which are one exact letter. */
static int word(struct scanner *s)
{
	size_t start = s->pos, n;
	char c = s->sql[start];

	while (is_cont(at(s, s->pos)))
		s->pos++;
	n = s->pos - start;
	if (n == 1 && at(s, s->pos) == '\'' && strchr("eEbBxXnN", c)) {
		s->pos++;
		s->operand = true;
		return string_constant(s, start, c == 'e' || c == 'E');
	}
	if (n == 1 && (c == 'u' || c == 'U') && at(s, s->pos) == '&') {
		char quote = at(s, s->pos + 1);

		if (quote == '\'' || quote == '"') {
			s->pos += 2;
			s->operand = true;
			return quote == '"' ? quoted_identifier(s, start)
			                    : string_constant(s, start, false);
		}
	}
	/* Behind a dot even a reserved word is a column. */
	s->operand =
	    (start > 0 && s->sql[start - 1] == '.') || !begins_expression(s, s->sql + start, n);
	s->time = n == 4 && strncasecmp(s->sql + start, "time", 4) == 0;
	return 0;
}

/* Digits, and what runs on from them: 15 calls letters there junk, 16 has 0x1F and 1_000. `$` does
 * not run on: `1$$x$$` is a number and a string. */
static void number(struct scanner *s)
{
	while (is_tag(at(s, s->pos)) || at(s, s->pos) == '.')
		s->pos++;
	s->operand = true;
}

static int open_bracket(struct scanner *s, char c)
{
	if (s->depth == SCAN_NESTING_MAX)
		return fail(s, s->pos, "brackets are nested too deep");
	s->open[s->depth++] = c;
	s->pos++;
	s->operand = false;
	return 0;
}

/* Unbalanced brackets are PostgreSQL's to report. */
static void close_bracket(struct scanner *s)
{
	if (s->depth > 0)
		s->depth--;
	s->pos++;
	s->operand = true;
}

static int add_param(struct scanner *s, size_t start)
{
	struct scan_result *r = &s->out;

	if (at(s, s->pos) == '$' || (at(s, s->pos) & 0x80))
		return fail(s, start, "a parameter's name has letters a-z, digits and _ only");
	if (r->params == s->params_cap) {
		s->params_cap = s->params_cap ? 2 * s->params_cap : 16;
		r->param = xrealloc(r->param, s->params_cap, sizeof(*r->param));
	}
	r->param[r->params++] = (struct scan_param){.start = start, .end = s->pos};
	s->operand = true;
	return 0;
}

/* `::` and `:=` are tokens of their own; any other colon is a slice's or begins a parameter. */
static int colon(struct scanner *s)
{
	size_t start = s->pos++;
	bool slice = s->operand && s->depth > 0 && s->open[s->depth - 1] == '[';

	s->operand = false;
	if (at(s, s->pos) == ':' || at(s, s->pos) == '=') {
		s->pos++;
		return 0;
	}
	if (slice || !is_name(at(s, s->pos)) || is_digit(s->sql[s->pos]))
		return 0;
	while (is_name(at(s, s->pos)))
		s->pos++;
	return add_param(s, start);
}

static int token(struct scanner *s)
{
	size_t start = s->pos;
	char c = s->sql[start];

	switch (c) {
	case '\'':
		s->pos++;
		s->operand = true;
		return string_constant(s, start, false);
	case '"':
		s->pos++;
		s->operand = true;
		return quoted_identifier(s, start);
	case '$':
		s->operand = false;
		return dollar(s);
	case ':':
		return colon(s);
	case '(':
	case '[':
		return open_bracket(s, c);
	case ')':
	case ']':
		close_bracket(s);
		return 0;
	}
	if (is_start(c))
		return word(s);
	if (is_digit(c) || (c == '.' && is_digit(at(s, start + 1)))) {
		number(s);
		return 0;
	}
	/* Operators are taken a character at a time: scan.l ends them where a comment begins, and
	 * none contains a colon. */
	s->operand = false;
	s->pos++;
	return 0;
}

static int step(struct scanner *s)
{
	char c = s->sql[s->pos], next = at(s, s->pos + 1);
	int r;

	if (is_space(c)) {
		s->pos++;
		return 0;
	}
	if (c == '-' && next == '-') {
		line_comment(s);
		return 0;
	}
	if (c == '/' && next == '*')
		return block_comment(s);
	if (s->finished)
		return fail(s, s->pos, "a second statement: one file is one statement");
	if (c == ';') {
		s->finished = true;
		s->pos++;
		return 0;
	}
	s->after_time = s->time;
	s->time = false;
	r = token(s);
	if (r == 0)
		s->out.end = s->pos;
	return r;
}

void scan_result_done(struct scan_result *r)
{
	free(r->param);
	*r = (struct scan_result){0};
}

int scan_sql(const char *sql, size_t len, struct scan_result *ret, size_t *ret_pos,
             const char **ret_why)
{
	struct scanner s = {.sql = sql, .len = len};
	const char *nul = len ? memchr(sql, '\0', len) : NULL;
	int r = 0;

	if (nul)
		r = fail(&s, (size_t)(nul - sql), "the statement holds a NUL byte");
	while (r == 0 && s.pos < len)
		r = step(&s);
	if (r == 0 && s.out.end == 0)
		r = fail(&s, 0, "there is no statement");
	if (r < 0) {
		*ret_pos = s.pos;
		*ret_why = s.why;
		scan_result_done(&s.out);
		return r;
	}
	*ret = s.out;
	return 0;
}
