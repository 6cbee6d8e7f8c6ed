#include "provost/base.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* ---- assertions and memory ----------------------------------------------------------- */

_noreturn_ void base_assert_failed(const char *expr, const char *file, int line, const char *func)
{
	/* Not through the log: its locks may be what is broken. */
	fprintf(stderr, "provost: assertion failed: %s (%s:%d, %s)\n", expr, file, line, func);
	fflush(stderr);
	abort();
}

static _noreturn_ void out_of_memory(void)
{
	fputs("provost: out of memory\n", stderr);
	exit(EXIT_FAILURE);
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *xrealloc(void *p, size_t n, size_t size)
{
	void *q = reallocarray(p, n ? n : 1, size ? size : 1);

	if (!q)
		out_of_memory();
	return q;
}

char *xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
	char *p;

	n = strnlen(s, n);
	if (n == SIZE_MAX)
		out_of_memory();
	p = xcalloc(n + 1, 1);
	memcpy(p, s, n);
	return p;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return s;
}

/* ---- time ---------------------------------------------------------------------------- */

uint64_t clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t clock_ms(void)
{
	return clock_us() / 1000;
}

/* ---- randomness ---------------------------------------------------------------------- */

static uint64_t random_seed(void)
{
	uint64_t seed;

	/* Before the kernel's pool is ready, or where the call is forbidden, jitter still has to
	 * differ between threads and runs. */
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = clock_us() ^ (uint64_t)(uintptr_t)&seed ^ (uint64_t)getpid() << 32;
	return seed;
}

/* splitmix64: a counter through a mixer, so every seed is a good one, zero included. */
static uint64_t random_next(void)
{
	static _Thread_local uint64_t state;
	static _Thread_local bool seeded;
	uint64_t z;

	if (!seeded) {
		state = random_seed();
		seeded = true;
	}
	z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t jitter(uint64_t bound)
{
	return (uint64_t)((unsigned __int128)random_next() * bound >> 64);
}

/* ---- text ---------------------------------------------------------------------------- */

static bool is_continuation(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* The bytes of the code point that begins at `s`, or 0 when it is not one. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
	unsigned char lead = s[0], low = 0x80, high = 0xbf;
	size_t len;

	if (lead < 0x80)
		return 1;
	if (lead < 0xc2) /* a continuation, or an overlong form of ASCII */
		return 0;
	if (lead < 0xe0)
		len = 2;
	else if (lead < 0xf0)
		len = 3;
	else if (lead < 0xf5)
		len = 4;
	else
		return 0;
	if (n < len)
		return 0;

	/* The second byte is where overlong forms, surrogates and what lies above U+10FFFF show. */
	if (lead == 0xe0)
		low = 0xa0;
	else if (lead == 0xed)
		high = 0x9f;
	else if (lead == 0xf0)
		low = 0x90;
	else if (lead == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if (!is_continuation(s[i]))
			return 0;
	}
	return len;
}

/* How many bytes from `s` are ASCII, counted in words: a lower bound within seven. */
static size_t ascii_run(const unsigned char *s, size_t n)
{
	size_t i = 0;

	while (n - i >= sizeof(uint64_t)) {
		uint64_t w;

		memcpy(&w, s + i, sizeof(w));
		if (w & 0x8080808080808080u)
			break;
		i += sizeof(w);
	}
	return i;
}

ssize_t utf8_length(const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t i = 0, count = 0;

	while (i < n) {
		size_t len;

		if (s[i] < 0x80) {
			size_t run = ascii_run(s + i, n - i);

			if (run == 0)
				run = 1;
			i += run;
			count += run;
			continue;
		}
		len = utf8_sequence(s + i, n - i);
		if (len == 0)
			return -EILSEQ;
		i += len;
		count++;
	}
	return (ssize_t)count;
}

char *integer_text(char *to, int64_t n)
{
	char digits[INTEGER_TEXT_MAX], *d = digits + sizeof(digits);
	uint64_t u = n < 0 ? -(uint64_t)n : (uint64_t)n;
	size_t len;

	do
		*--d = (char)('0' + u % 10);
	while (u /= 10);
	if (n < 0)
		*--d = '-';
	len = (size_t)(digits + sizeof(digits) - d);
	memcpy(to, d, len);
	to[len] = '\0';
	return to + len;
}
