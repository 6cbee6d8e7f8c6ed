#include "provost/strlist.h"

#include <string.h>
#include <strings.h>

void strlist_done(struct strlist *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->item[i]);
	free(l->item);
	l->item = NULL;
	l->count = 0;
}

void strlist_add(struct strlist *l, const char *s, size_t n)
{
	l->item = xrealloc(l->item, l->count + 1, sizeof(*l->item));
	l->item[l->count++] = xstrndup(s, n);
}

bool strlist_has(const struct strlist *l, const char *s)
{
	for (size_t i = 0; i < l->count; i++) {
		if (strcmp(l->item[i], s) == 0)
			return true;
	}
	return false;
}

bool strlist_has_nocase(const struct strlist *l, const char *s)
{
	for (size_t i = 0; i < l->count; i++) {
		if (strcasecmp(l->item[i], s) == 0)
			return true;
	}
	return false;
}

bool strlist_equal(const struct strlist *a, const struct strlist *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (strcmp(a->item[i], b->item[i]) != 0)
			return false;
	}
	return true;
}
