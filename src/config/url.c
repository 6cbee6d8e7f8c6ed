#include "url.h"

#include <errno.h>
#include <libpq-fe.h>
#include <string.h>
#include <strings.h>

#include "urlquery.h"

#define SCHEME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.:-_"

void url_settings_done(struct url_settings *s)
{
	free(s->conninfo);
	s->conninfo = NULL;
}

/* ---- what libpq makes of it ---------------------------------------------------------- */

static const char *option_value(const PQconninfoOption *all, const char *name)
{
	for (const PQconninfoOption *o = all; o->keyword; o++) {
		if (strcmp(o->keyword, name) == 0)
			return o->val;
	}
	return NULL;
}

static bool are_ports(const char *s)
{
	for (;;) {
		size_t n = strspn(s, "0123456789");

		if (n > 5 || (n > 0 && (atol(s) < 1 || atol(s) > 65535)))
			return false;
		if (s[n] == '\0')
			return true;
		if (s[n] != ',')
			return false;
		s += n + 1;
	}
}

static bool is_ssl_mode(const char *s)
{
	static const char *const modes[] = {"disable", "allow",     "prefer",
	                                    "require", "verify-ca", "verify-full"};

	for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
		if (strcmp(s, modes[i]) == 0)
			return true;
	}
	return false;
}

/* A password with a raw `/` or `@` ends early, and the rest of it becomes host, port or database.
 */
static bool looks_split(const PQconninfoOption *all)
{
	const char *port = option_value(all, "port");
	const char *host = option_value(all, "host");
	const char *dbname = option_value(all, "dbname");

	return (port && !are_ports(port)) || (host && strchr(host, '@') && *host != '@') ||
	       (dbname && strchr(dbname, '@'));
}

static int check_options(const PQconninfoOption *all, bool is_url, char why[URL_WHY_MAX])
{
	const char *port = option_value(all, "port");
	const char *mode = option_value(all, "sslmode");
	const char *host = option_value(all, "host");
	const char *address = option_value(all, "hostaddr");

	if (is_url && looks_split(all))
		return url_refuse(
		    why,
		    "the port is no number from 1 to 65535, or host or database hold an `@`: "
		    "in user and password write `/`, `@`, `:`, `?` and `%%` as %%2F, %%40, %%3A, "
		    "%%3F and %%25");
	if ((host && strchr(host, ',')) || (address && strchr(address, ',')))
		return url_refuse(
		    why,
		    "name one host: of several, a first one that is silent would never be left "
		    "for the next; what chooses among servers is a proxy in front of them");
	if (port && !are_ports(port))
		return url_refuse(why, "write the port as a number from 1 to 65535");
	if (mode && *mode && !is_ssl_mode(mode))
		return url_refuse(
		    why, "write disable, allow, prefer, require, verify-ca or verify-full behind "
		         "`sslmode=`");
	return 0;
}

/* libpq's words up to what they quote, which may be a password. */
static int refuse_by_libpq(const char *message, char why[URL_WHY_MAX])
{
	size_t n = message ? strcspn(message, "\":\n") : 0;

	while (n > 0 && message[n - 1] == ' ')
		n--;
	if (n < 12) /* `missing "=" after ...` */
		return url_refuse(why,
		                  "write a URL (postgresql://user:password@host:port/database) or "
		                  "keywords (host=... dbname=...)");
	return url_refuse(why, "libpq cannot read it (%.*s)", (int)MIN(n, (size_t)200), message);
}

static int check_conninfo(const char *conninfo, bool is_url, const struct url_query *q,
                          char why[URL_WHY_MAX])
{
	char *message = NULL;
	PQconninfoOption *all = PQconninfoParse(conninfo, &message);
	const char *mode;
	int r;

	if (!all) {
		r = refuse_by_libpq(message, why);
		PQfreemem(message);
		return r;
	}
	mode = option_value(all, "sslmode");
	r = check_options(all, is_url, why);
	if (r == 0 && q && q->ssl_strict && !(mode && strncmp(mode, "verify-", 7) == 0))
		r = url_refuse(why, "instead of sslaccept=strict write sslmode=verify-full and "
		                    "sslrootcert=FILE, the certificates to trust");
	PQconninfoFree(all);
	return r;
}

/* ---- the URL ------------------------------------------------------------------------- */

/* The length of `scheme` before `://`, or 0 for keywords. */
static size_t scheme_length(const char *text)
{
	size_t n = 0;

	while (text[n] && strchr(SCHEME_BYTES, text[n]) && strncmp(text + n, "://", 3) != 0)
		n++;
	return strncmp(text + n, "://", 3) == 0 ? n : 0;
}

/* `postgresql`, `postgres`, or either with a driver's name behind a `+`. */
static int check_scheme(const char *s, size_t n, char why[URL_WHY_MAX])
{
	size_t base = strcspn(s, "+:");

	if (n >= 5 && strncasecmp(s, "jdbc:", 5) == 0)
		return url_refuse(
		    why,
		    "this is a URL for JDBC: write postgresql://user:password@host:port/database, "
		    "with user and password before the host and without `jdbc:`");
	if ((base == n || s[base] == '+') &&
	    ((base == 10 && strncasecmp(s, "postgresql", 10) == 0) ||
	     (base == 8 && strncasecmp(s, "postgres", 8) == 0)))
		return 0;
	return url_refuse(why, "this is no URL of a PostgreSQL database: write "
	                       "postgresql://user:password@host:port/database");
}

/* Where the query begins. As libpq has it: a `?` before the `@` belongs to user or password. */
static const char *find_query(const char *rest)
{
	const char *at = rest + strcspn(rest, "@/");
	const char *from = *at == '@' ? at : rest;

	return from + strcspn(from, "?");
}

static int rewrite_url(struct url_query *q, const char *text, size_t scheme)
{
	const char *rest = text + scheme + 3;
	const char *query = find_query(rest);
	_cleanup_buf_ struct buf b = {0};
	_cleanup_free_ char *plain = NULL, *whole = NULL;
	int r;

	buf_addf(&b, "postgresql://%.*s", (int)(query - rest), rest);
	ALWAYS(!b.failed);
	plain = xstrndup(b.data, b.len);

	/* Without its query first: a password that broke apart must not be taken for parameters. */
	r = check_conninfo(plain, true, NULL, q->why);
	if (r < 0)
		return r;
	r = url_query_read(q, *query ? query + 1 : query);
	if (r < 0)
		return r;
	buf_add(&b, q->kept.data, q->kept.len);
	whole = buf_take(&b, NULL);
	ALWAYS(whole);
	r = check_conninfo(whole, true, q, q->why);
	if (r < 0)
		return r;
	q->settings->conninfo = whole;
	whole = NULL;
	return 0;
}

static int read_url(const char *text, size_t scheme, struct url_settings *s, char why[URL_WHY_MAX])
{
	struct url_query q = {.settings = s, .why = why};
	int r = check_scheme(text, scheme, why);

	if (r == 0)
		r = rewrite_url(&q, text, scheme);
	url_query_done(&q);
	return r;
}

int url_read(const char *text, struct url_settings *ret, char why[URL_WHY_MAX])
{
	struct url_settings s = {.pool_max = -1, .acquire_timeout_ms = -1};
	size_t scheme = scheme_length(text);
	int r;

	if (scheme) {
		r = read_url(text, scheme, &s, why);
	} else {
		r = check_conninfo(text, false, NULL, why);
		if (r == 0)
			s.conninfo = xstrdup(text);
	}
	if (r == 0)
		*ret = s;
	return r;
}

/* ---- showing ------------------------------------------------------------------------- */

static void add_keyword_value(struct buf *b, const char *s)
{
	if (*s && !strpbrk(s, " '\\")) {
		buf_adds(b, s);
		return;
	}
	buf_addc(b, '\'');
	for (; *s; s++) {
		if (*s == '\'' || *s == '\\')
			buf_addc(b, '\\');
		buf_addc(b, *s);
	}
	buf_addc(b, '\'');
}

char *url_display(const char *conninfo)
{
	PQconninfoOption *all = PQconninfoParse(conninfo, NULL);
	struct buf b = {0};
	char *text;

	if (!all)
		return xstrdup("***");
	for (PQconninfoOption *o = all; o->keyword; o++) {
		if (!o->val)
			continue;
		buf_addf(&b, "%s%s=", b.len ? " " : "", o->keyword);
		/* libpq marks passwords with a star. */
		if (strchr(o->dispchar, '*'))
			buf_adds(&b, "***");
		else
			add_keyword_value(&b, o->val);
	}
	PQconninfoFree(all);
	text = buf_take(&b, NULL);
	ALWAYS(text);
	return text;
}
