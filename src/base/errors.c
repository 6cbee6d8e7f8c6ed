#include "provost/errors.h"

#include <stdarg.h>

struct errors {
	char *text[ERRORS_MAX];
	size_t kept;
	size_t count;
};

struct errors *errors_new(void)
{
	return xcalloc(1, sizeof(struct errors));
}

void errors_free(struct errors **e)
{
	if (!*e)
		return;
	for (size_t i = 0; i < (*e)->kept; i++)
		free((*e)->text[i]);
	free(*e);
	*e = NULL;
}

/* What a file holds ends up on a terminal: one entry stays one line and moves no cursor. */
static void make_printable(char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x20 || c == 0x7f)
			*s = '?';
	}
}

void errors_add(struct errors *e, const char *file, unsigned line, const char *fmt, ...)
{
	_cleanup_free_ char *sentence = NULL;
	va_list ap;
	char *text;

	e->count++;
	if (e->kept == ERRORS_MAX)
		return;

	va_start(ap, fmt);
	if (vasprintf(&sentence, fmt, ap) < 0)
		sentence = xstrdup("out of memory");
	va_end(ap);

	if (!file)
		text = xstrdup(sentence);
	else if (line == 0)
		text = xasprintf("%s: %s", file, sentence);
	else
		text = xasprintf("%s:%u: %s", file, line, sentence);
	make_printable(text);
	e->text[e->kept++] = text;
}

size_t errors_count(const struct errors *e)
{
	return e->count;
}

const char *errors_text(const struct errors *e, size_t i)
{
	return i < e->kept ? e->text[i] : NULL;
}

void errors_print(const struct errors *e, FILE *to)
{
	for (size_t i = 0; i < e->kept; i++)
		fprintf(to, "%s\n", e->text[i]);
	if (e->count > e->kept)
		fprintf(to, "and %zu more\n", e->count - e->kept);
}
