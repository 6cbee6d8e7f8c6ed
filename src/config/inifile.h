/*
 * inifile: sections and pairs of an ini text, with the lines they stand in.
 *
 * inih takes the pairs apart. What it would do silently is caught before it sees a line: it cuts
 * names of sections, says nothing of empty ones, splits lines that are too long, and takes an
 * indented line for the rest of the one before. Pure but for inih's settings, which are global: one
 * thread at a time.
 */
#ifndef PROVOST_CONFIG_INIFILE_H
#define PROVOST_CONFIG_INIFILE_H

#include "provost/base.h"

enum { INIFILE_LINE_MAX = 4096 /* bytes, without the line's end */ };

/* Called in the order of the text. Strings last for the call. */
struct inifile_handler {
	void *arg;
	void (*section)(void *arg, unsigned line, const char *name);
	void (*pair)(void *arg, unsigned line, const char *key, const char *value);
	void (*problem)(void *arg, unsigned line, const char *sentence);
};

void inifile_read(const char *text, size_t len, const struct inifile_handler *h);

#endif
