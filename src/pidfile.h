/*
 * pidfile: the file by which `provost reload` finds the server.
 *
 * The server holds a lock on it (flock) for as long as it lives, so a file that was left behind
 * names nobody, and a second server leaves that of the first alone. Main thread.
 */
#ifndef PROVOST_PIDFILE_H
#define PROVOST_PIDFILE_H

#include "provost/base.h"

/* Opens, locks and empties the file. The descriptor; -EWOULDBLOCK: another process holds it, and
 * nothing was changed; another negative errno. */
int pidfile_lock(const char *path) _must_check_;
/* Writes this process's pid. */
int pidfile_write(int fd) _must_check_;
/* Removes the file and lets go of it. Accepts -1. */
void pidfile_remove(const char *path, int fd);

/* Of the server that holds the file: -ENOENT, there is no file, or no pid in it (yet); -ESRCH,
 * nobody holds it, with the pid it had. */
int pidfile_read(const char *path, pid_t *ret) _must_check_;

#endif
