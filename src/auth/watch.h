/*
 * watch: which files were read, and whether they are still the same. One thread at a time; blocks
 * on the disk.
 */
#ifndef PROVOST_AUTH_WATCH_H
#define PROVOST_AUTH_WATCH_H

#include <sys/stat.h>

#include "provost/base.h"

struct watched {
	char *path;
	struct stat st; /* all zero: could not be looked at */
};

struct watch {
	struct watched *file;
	size_t count;
};

/* Before the file is read, so that what changes meanwhile is noticed. */
void watch_add(struct watch *w, const char *path);
bool watch_changed(const struct watch *w);
void watch_done(struct watch *w);

#endif
