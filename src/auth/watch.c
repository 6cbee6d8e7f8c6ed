#include "watch.h"

#include <string.h>

static void look(const char *path, struct stat *st)
{
	if (stat(path, st) < 0)
		memset(st, 0, sizeof *st);
}

static bool same_moment(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* The inode's own change time as well: a file can be given an old modification time. */
static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mode == b->st_mode && same_moment(a->st_mtim, b->st_mtim) &&
	       same_moment(a->st_ctim, b->st_ctim);
}

void watch_add(struct watch *w, const char *path)
{
	struct watched *f;

	w->file = xrealloc(w->file, w->count + 1, sizeof *w->file);
	f = &w->file[w->count++];
	f->path = xstrdup(path);
	look(path, &f->st);
}

bool watch_changed(const struct watch *w)
{
	for (size_t i = 0; i < w->count; i++) {
		struct stat st;

		look(w->file[i].path, &st);
		if (!same(&st, &w->file[i].st))
			return true;
	}
	return false;
}

void watch_done(struct watch *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->file[i].path);
	free(w->file);
	*w = (struct watch){.file = NULL};
}
