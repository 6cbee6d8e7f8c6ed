#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <wctype.h>

#include "value.h"

static pthread_once_t locale_once = PTHREAD_ONCE_INIT;
static locale_t utf8_locale;

/* glibc has C.UTF-8 built in. Its simple case mappings are those that PostgreSQL applies in a
 * database of that locale, and they map one code point to one. */
static void locale_load(void)
{
	utf8_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

/* The code point at the start of valid UTF-8, and its bytes. */
static uint32_t code_point(const char *s, size_t *ret_n)
{
	const unsigned char *u = (const unsigned char *)s;

	if (u[0] < 0x80) {
		*ret_n = 1;
		return u[0];
	}
	if (u[0] < 0xe0) {
		*ret_n = 2;
		return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
	}
	if (u[0] < 0xf0) {
		*ret_n = 3;
		return (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
	}
	*ret_n = 4;
	return (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu);
}

void utf8_add(struct buf *out, uint32_t c)
{
	char s[4];
	size_t n;

	if (c < 0x80) {
		s[0] = (char)c;
		n = 1;
	} else if (c < 0x800) {
		s[0] = (char)(0xc0 | c >> 6);
		n = 2;
	} else if (c < 0x10000) {
		s[0] = (char)(0xe0 | c >> 12);
		n = 3;
	} else {
		s[0] = (char)(0xf0 | c >> 18);
		n = 4;
	}
	for (size_t i = 1; i < n; i++)
		s[i] = (char)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
	buf_add(out, s, n);
}

/* Unicode's White_Space and U+FEFF: what browsers trim. */
static bool is_blank(uint32_t c)
{
	switch (c) {
	case 0x09 ... 0x0d:
	case 0x20:
	case 0x85:
	case 0xa0:
	case 0x1680:
	case 0x2000 ... 0x200a:
	case 0x2028:
	case 0x2029:
	case 0x202f:
	case 0x205f:
	case 0x3000:
	case 0xfeff:
		return true;
	default:
		return false;
	}
}

struct slice text_trim(struct slice s)
{
	size_t n;

	while (s.n > 0 && is_blank(code_point(s.p, &n))) {
		s.p += n;
		s.n -= n;
	}
	while (s.n > 0) {
		size_t last = s.n - 1;

		while ((s.p[last] & 0xc0) == 0x80)
			last--;
		if (!is_blank(code_point(s.p + last, &n)))
			break;
		s.n = last;
	}
	return s;
}

static uint32_t map_case(uint32_t c, bool upper)
{
	if (!utf8_locale) {
		if (c >= 0x80)
			return c;
		return (uint32_t)(upper ? (c >= 'a' && c <= 'z' ? c - 32 : c)
		                        : (c >= 'A' && c <= 'Z' ? c + 32 : c));
	}
	return (uint32_t)(upper ? towupper_l((wint_t)c, utf8_locale)
	                        : towlower_l((wint_t)c, utf8_locale));
}

static void add_cased(struct buf *out, struct slice s, bool upper)
{
	size_t n;

	pthread_once(&locale_once, locale_load);
	for (size_t i = 0; i < s.n; i += n)
		utf8_add(out, map_case(code_point(s.p + i, &n), upper));
}

int text_canonical(const struct param *p, const char *s, size_t n, struct buf *out,
                   size_t *ret_length, const char **ret_why)
{
	struct slice t = {s, n};
	ssize_t length = utf8_length(s, n);

	if (length < 0) {
		*ret_why = "must be valid UTF-8";
		return -EINVAL;
	}
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\0') {
			*ret_why = "must not contain a NUL character";
			return -EINVAL;
		}
	}
	if (p->trim) {
		t = text_trim(t);
		length = utf8_length(t.p, t.n);
	}
	if (p->upper || p->lower)
		add_cased(out, t, p->upper);
	else
		buf_add(out, t.p, t.n);
	*ret_length = (size_t)length;
	return 0;
}
