/*
 * strlist: an owned list of strings, for configuration values such as `a, b, c`.
 * Plain data; owned by one thread or immutable.
 */
#ifndef PROVOST_STRLIST_H
#define PROVOST_STRLIST_H

#include "provost/base.h"

struct strlist {
	char **item;
	size_t count;
};

void strlist_done(struct strlist *l);
void strlist_add(struct strlist *l, const char *s, size_t n);
bool strlist_has(const struct strlist *l, const char *s);
bool strlist_has_nocase(const struct strlist *l, const char *s);
bool strlist_equal(const struct strlist *a, const struct strlist *b);

#endif
