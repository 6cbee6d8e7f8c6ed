/*
 * base: what every module leans on and nobody argues about.
 *
 * Assertions stay on in release builds; they state invariants, never input or I/O. Objects that
 * cross a `void *` carry a magic number that is checked on the way back. Cleanup attributes are
 * named `_cleanup_X_` and stand beside the type they free; the plain ones are here.
 *
 * Everything here is thread-safe unless it says otherwise: it keeps no state.
 */
#ifndef PROVOST_BASE_H
#define PROVOST_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define _cleanup_(f)   __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _must_check_   __attribute__((warn_unused_result))
#define _noreturn_     __attribute__((noreturn))

#define ELEMENTSOF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

_noreturn_ void base_assert_failed(const char *expr, const char *file, int line, const char *func);

/* An invariant: aborts with the expression when it does not hold. */
#define ALWAYS(e)                                                                                  \
	do {                                                                                       \
		if (__builtin_expect(!(e), 0))                                                     \
			base_assert_failed(#e, __FILE__, __LINE__, __func__);                      \
	} while (0)

/* The object at `p` is alive and of the type that its magic says. */
#define CHECK_MAGIC(p, m) ALWAYS((p) != NULL && (p)->magic == (m))

/* Memory that start-up and loading cannot do without: exits with a message when there is none.
 * Request paths use malloc and answer 503. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) _printf_(1, 2);

static inline void freep(void *p)
{
	free(*(void **)p);
}
static inline void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}
static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define _cleanup_free_   _cleanup_(freep)
#define _cleanup_fclose_ _cleanup_(fclosep)
#define _cleanup_close_  _cleanup_(closep)

/* ---- time ---------------------------------------------------------------------------- */

/* CLOCK_MONOTONIC in microseconds and milliseconds. Only loops and entry points read it; logic
 * takes `now` as a parameter. */
uint64_t clock_us(void);
uint64_t clock_ms(void);

/* ---- randomness ---------------------------------------------------------------------- */

/* A pseudo-random number in [0, bound) for jitter; not for secrets. bound 0 gives 0. One generator
 * per thread. */
uint64_t jitter(uint64_t bound);

/* ---- text ---------------------------------------------------------------------------- */

/* The length in code points of `n` bytes of UTF-8 (RFC 3629: no surrogates, no overlong forms, at
 * most U+10FFFF), or -EILSEQ. A NUL is a code point like any other. */
ssize_t utf8_length(const char *s, size_t n);

/* `n` in decimal and a NUL, INTEGER_TEXT_MAX bytes at most; gives the place of the NUL. */
enum { INTEGER_TEXT_MAX = 21 };
char *integer_text(char *to, int64_t n);

#endif
