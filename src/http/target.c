#include <errno.h>
#include <string.h>
#include <strings.h>

#include "provost/target.h"

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Visible ASCII; a fragment is never part of a target (RFC 9110, section 7.1). */
static bool chars_valid(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= 0x20 || s[i] >= 0x7f || s[i] == '#')
			return false;
	return true;
}

static bool escapes_valid(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '%' && (s.n - i < 3 || !is_hex(s.p[i + 1]) || !is_hex(s.p[i + 2])))
			return false;
	return true;
}

/* The length of `http://` or `https://`, compared without case (RFC 3986, section 3.1); 0
 * otherwise. */
static size_t scheme_length(const char *s, size_t n)
{
	if (n >= 7 && strncasecmp(s, "http://", 7) == 0)
		return 7;
	if (n >= 8 && strncasecmp(s, "https://", 8) == 0)
		return 8;
	return 0;
}

/* Host and port only: user information has no place in a request (RFC 9110, section 4.2.4). */
static bool authority_valid(struct slice a)
{
	return a.n > 0 && !memchr(a.p, '@', a.n);
}

int target_parse(const char *s, size_t n, struct target *ret)
{
	struct target t = {0};
	size_t pos, end;

	if (n == 0 || !chars_valid(s, n))
		return -EINVAL;
	if (n == 1 && s[0] == '*') {
		*ret = (struct target){.asterisk = true};
		return 0;
	}
	pos = scheme_length(s, n);
	if (pos > 0) {
		for (end = pos; end < n && s[end] != '/' && s[end] != '?'; end++)
			;
		t.authority = (struct slice){s + pos, end - pos};
		if (!authority_valid(t.authority))
			return -EINVAL;
		pos = end;
	}
	/* `http://host` and `http://host?q` have an empty path, which stands for `/`. */
	if (t.authority.n && (pos == n || s[pos] == '?'))
		t.path = (struct slice){"/", 1};
	else if (s[pos] != '/')
		return -EINVAL;
	for (end = pos; end < n && s[end] != '?'; end++)
		;
	if (!t.path.p)
		t.path = (struct slice){s + pos, end - pos};
	if (end < n)
		t.query = (struct slice){s + end + 1, n - end - 1};
	if (!escapes_valid(t.path))
		return -EINVAL;
	*ret = t;
	return 0;
}

bool target_take_pair(struct slice *query, struct slice *ret_name, struct slice *ret_value)
{
	if (query->n == 0)
		return false;
	const char *amp = memchr(query->p, '&', query->n), *end = query->p + query->n;
	const char *stop = amp ? amp : end;
	const char *equals = memchr(query->p, '=', (size_t)(stop - query->p));
	*ret_name = (struct slice){query->p, (size_t)((equals ? equals : stop) - query->p)};
	*ret_value =
	    (struct slice){equals ? equals + 1 : stop, equals ? (size_t)(stop - equals - 1) : 0};
	*query = (struct slice){amp ? amp + 1 : end, amp ? (size_t)(end - amp - 1) : 0};
	return true;
}
