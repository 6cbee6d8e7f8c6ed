/*
 * secret: bytes that must not be seen: counted, immutable, in guarded memory.
 *
 * The bytes lie in pages of their own that core dumps leave out (MADV_DONTDUMP), that are locked
 * where the system allows it, read-only once filled, and zeroed when the last reference goes. What
 * libraries need for the time of one computation is copied by whoever computes, and zeroed there.
 *
 * Any thread; the count is atomic. secret_read_file blocks on the disk. Bound: SECRET_MAX bytes.
 */
#ifndef PROVOST_SECRET_H
#define PROVOST_SECRET_H

#include "provost/base.h"

enum { SECRET_MAX = 64 << 10 };

struct secret;

/* Copies `n` bytes; the caller wipes its own. NULL when n is 0 or beyond SECRET_MAX, or out of
 * memory. */
struct secret *secret_new(const void *bytes, size_t n) _must_check_;

/* Copies a text and overwrites the original with NULs: for a value in the process's environment,
 * which would otherwise show in /proc/PID/environ and in every core dump. Once, before other
 * threads read the environment. NULL as secret_new; the original is wiped then, too. */
struct secret *secret_take(char *text) _must_check_;

/* A whole file, read into guarded memory directly. -ENODATA: it is empty; -EFBIG: larger than
 * SECRET_MAX; -EPERM: everybody may write to it; -EISDIR: not a regular file; or why it cannot be
 * read. `ret_shared` (may be NULL): others than owner and group may read it. */
int secret_read_file(const char *path, struct secret **ret, bool *ret_shared) _must_check_;

struct secret *secret_ref(struct secret *s);
void secret_unref(struct secret **s);
#define _cleanup_secret_ _cleanup_(secret_unref)

const unsigned char *secret_bytes(const struct secret *s);
size_t secret_len(const struct secret *s);

#endif
