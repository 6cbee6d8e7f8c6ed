#include "inifile.h"

#include <ini.h>
#include <string.h>

#define BLANKS " \t\v\f\r"

struct reader {
	const struct inifile_handler *handler;
	const char *text;
	size_t len, pos;
	unsigned line; /* of what inih was given last, from 1 */
};

static bool is_blank(char c)
{
	return c && strchr(BLANKS, c);
}

static void trim(const char **s, size_t *n)
{
	while (*n > 0 && is_blank(**s)) {
		(*s)++;
		(*n)--;
	}
	while (*n > 0 && is_blank((*s)[*n - 1]))
		(*n)--;
}

static void problem(struct reader *r, const char *sentence)
{
	r->handler->problem(r->handler->arg, r->line, sentence);
}

/* `[name]`, and perhaps a comment behind it. */
static void read_section(struct reader *r, const char *s, size_t n)
{
	const char *end = memchr(s, ']', n);
	const char *name = s + 1, *rest;
	_cleanup_free_ char *copy = NULL;
	size_t name_len, rest_len;

	if (!end) {
		problem(r, "a section's name ends with `]`: write [name]");
		return;
	}
	rest = end + 1;
	rest_len = n - (size_t)(rest - s);
	trim(&rest, &rest_len);
	if (rest_len > 0 && *rest != ';' && *rest != '#') {
		problem(r, "nothing but a comment may follow the `]` of a section");
		return;
	}
	name_len = (size_t)(end - name);
	trim(&name, &name_len);
	copy = xstrndup(name, name_len);
	r->handler->section(r->handler->arg, r->line, copy);
}

/* Why a line cannot be read at all, or NULL. */
static const char *unreadable(const char *s, size_t n)
{
	if (n > INIFILE_LINE_MAX)
		return "the line is longer than 4096 bytes";
	if (memchr(s, '\0', n))
		return "the line holds a NUL byte: this is not a text file";
	if (utf8_length(s, n) < 0)
		return "the line is not UTF-8";
	return NULL;
}

/* The next line without its end; false at the end of the text. */
static bool next_line(struct reader *r, const char **ret, size_t *ret_n)
{
	const char *s = r->text + r->pos, *end;
	size_t left = r->len - r->pos;

	if (left == 0)
		return false;
	end = memchr(s, '\n', left);
	*ret = s;
	*ret_n = end ? (size_t)(end - s) : left;
	r->pos += *ret_n + (end ? 1 : 0);
	r->line++;
	if (r->line == 1 && *ret_n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0) {
		*ret += 3;
		*ret_n -= 3;
	}
	return true;
}

/* inih's reader, in the manner of fgets: what is dealt with here becomes an empty line. */
static char *give_line(char *to, int size, void *stream)
{
	struct reader *r = stream;
	const char *s, *why;
	size_t n;

	ALWAYS(size > INIFILE_LINE_MAX + 2);
	if (!next_line(r, &s, &n))
		return NULL;
	why = unreadable(s, n);
	if (why) {
		problem(r, why);
		n = 0;
	}
	trim(&s, &n);
	if (n > 0 && *s == '[') {
		read_section(r, s, n);
		n = 0;
	}
	memcpy(to, s, n);
	memcpy(to + n, "\n", 2);
	return to;
}

static int take_pair(void *user, const char *section, const char *name, const char *value)
{
	struct reader *r = user;

	if (!value || !*name)
		problem(r, "write `key = value`, [section], or a comment behind `;`");
	else
		r->handler->pair(r->handler->arg, r->line, name, value);
	return 1;
}

void inifile_read(const char *text, size_t len, const struct inifile_handler *h)
{
	struct reader r = {.handler = h, .text = text, .len = len};

	/* Debian's inih has its build options as variables. */
	ini_max_line = INIFILE_LINE_MAX + 4;
	ini_use_stack = true;
	ini_allow_multiline = false;
	ini_allow_no_value = true;
	if (ini_parse_stream(give_line, &r, take_pair, &r) != 0)
		problem(&r, "the file cannot be read");
}
