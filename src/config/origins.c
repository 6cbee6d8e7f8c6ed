#include "origins.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define HOST_BYTES "abcdefghijklmnopqrstuvwxyz0123456789-._"
#define IPV6_BYTES "abcdef0123456789:."

enum { HOST_MAX = 253 };

static int refuse(char *why, size_t n, const char *sentence)
{
	snprintf(why, n, "%s", sentence);
	return -EINVAL;
}

static bool has_default_port(const char *origin, const char *port)
{
	if (strncmp(origin, "https://", 8) == 0)
		return strcmp(port, "443") == 0;
	return strncmp(origin, "http://", 7) == 0 && strcmp(port, "80") == 0;
}

static bool is_port(const char *s)
{
	size_t digits = strspn(s, "0123456789");

	return digits > 0 && digits <= 5 && s[digits] == '\0' && s[0] != '0' && atoi(s) <= 65535;
}

static bool is_scheme(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!islower((unsigned char)s[i]) &&
		    (i == 0 || (!isdigit((unsigned char)s[i]) && !strchr("+.-", s[i]))))
			return false;
	}
	return n > 0;
}

/* The bytes of the host at `s`, 0 when it is none. */
static size_t host_length(const char *s)
{
	size_t n;

	if (*s != '[') {
		n = strspn(s, HOST_BYTES);
		return n <= HOST_MAX ? n : 0;
	}
	n = 1 + strspn(s + 1, IPV6_BYTES);
	return n > 2 && s[n] == ']' ? n + 1 : 0;
}

/* Checks one origin, in lower case already, and takes a default port off. */
static int normalise(char *origin, char *why, size_t n)
{
	char *host = strstr(origin, "://"), *end;

	if (!host || !is_scheme(origin, (size_t)(host - origin)))
		return refuse(why, n, "write an origin as scheme://host or scheme://host:port");
	host += 3;
	if (strchr(host, '*'))
		return refuse(why, n, "write every origin out, there is no `*`");
	if (strchr(host, '@'))
		return refuse(why, n, "leave user and password out, an origin has none");
	if (strpbrk(host, "/?#"))
		return refuse(why, n,
		              "leave out what follows the host and port, a `/` at the end too");

	end = host + host_length(host);
	if (end == host || (*end != '\0' && *end != ':'))
		return refuse(why, n,
		              "write the host in ASCII letters, digits, `-` and `.`, or as [IPv6]");
	if (*end == ':' && !is_port(end + 1))
		return refuse(why, n, "write the port as a number from 1 to 65535");
	if (*end == ':' && has_default_port(origin, end + 1))
		*end = '\0';
	return 0;
}

static int add_origin(struct strlist *l, const char *s, size_t len, char *why, size_t n)
{
	_cleanup_free_ char *origin = xstrndup(s, len);
	int r;

	for (char *p = origin; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	r = normalise(origin, why, n);
	if (r < 0 || strlist_has(l, origin))
		return r;
	if (l->count == ORIGINS_MAX)
		return refuse(why, n, "write at most 64 origins");
	strlist_add(l, origin, strlen(origin));
	return 0;
}

static int read_list(const char *text, struct strlist *l, char *why, size_t n)
{
	const char *s = text + strspn(text, " \t");

	if (!*s)
		return 0;
	for (;;) {
		size_t len, trimmed;
		int r;

		s += strspn(s, " \t");
		len = trimmed = strcspn(s, ",");
		while (trimmed > 0 && strchr(" \t", s[trimmed - 1]))
			trimmed--;
		if (trimmed == 0)
			return refuse(why, n, "write an origin before and after each comma");
		r = add_origin(l, s, trimmed, why, n);
		if (r < 0)
			return r;
		if (!s[len])
			return 0;
		s += len + 1;
	}
}

int origins_read(const char *text, struct strlist *l, char *why, size_t n)
{
	struct strlist fresh = {0};
	int r = read_list(text, &fresh, why, n);

	if (r < 0) {
		strlist_done(&fresh);
		return r;
	}
	strlist_done(l);
	*l = fresh;
	return 0;
}
