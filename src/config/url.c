#include "url.h"

#include <ctype.h>
#include <errno.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include "provost/buf.h"

enum { PARAM_NAME_MAX = 40, SCHEMA_MAX = 63 };

#define SCHEME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.:-_"
#define UNRESERVED   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

/* A URL on its way. */
struct rewrite {
	struct url_settings *settings;
	struct buf kept; /* the query that libpq gets */
	char *options;   /* decoded, as the URL has them */
	char *schema;    /* decoded */
	bool ssl_strict; /* sslaccept=strict */
	bool ssl_cert, ssl_key;
	char *why;
};

static int refuse(char why[URL_WHY_MAX], const char *fmt, ...) _printf_(2, 3);
static int refuse(char why[URL_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, URL_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

void url_settings_done(struct url_settings *s)
{
	free(s->conninfo);
	s->conninfo = NULL;
}

/* ---- percent-encoding -------------------------------------------------------------------------
 */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* NULL for a broken escape and for %00. */
static char *decode(const char *s, size_t n)
{
	char *out = xcalloc(n + 1, 1);
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		int high, low;

		if (s[i] != '%') {
			out[len++] = s[i];
			continue;
		}
		high = i + 2 < n ? hex_digit(s[i + 1]) : -1;
		low = high >= 0 ? hex_digit(s[i + 2]) : -1;
		if (low < 0 || (high == 0 && low == 0)) {
			free(out);
			return NULL;
		}
		out[len++] = (char)(high << 4 | low);
		i += 2;
	}
	return out;
}

static void add_encoded(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (strchr(UNRESERVED, *s))
			buf_addc(b, *s);
		else
			buf_addf(b, "%%%02X", (unsigned char)*s);
	}
}

/* ---- parameters of ORMs -----------------------------------------------------------------------
 */

static int param_schema(struct rewrite *w, const char *value)
{
	size_t n = strlen(value);

	if (n == 0 || n > SCHEMA_MAX)
		return refuse(w->why, "write a schema's name of 1 to 63 bytes behind `schema=`");
	free(w->schema);
	w->schema = xstrdup(value);
	return 0;
}

static int read_count(const char *s, int64_t max, int64_t *ret)
{
	if (!*s || s[strspn(s, "0123456789")] || strlen(s) > 9 || atoll(s) > max)
		return -EINVAL;
	*ret = atoll(s);
	return 0;
}

static int param_pool_max(struct rewrite *w, const char *value)
{
	if (read_count(value, 999999999, &w->settings->pool_max) < 0)
		return refuse(
		    w->why, "write a number of connections behind `connection_limit=` or `pool=`");
	return 0;
}

static int param_pool_timeout(struct rewrite *w, const char *value)
{
	int64_t seconds;

	if (read_count(value, 3600, &seconds) < 0)
		return refuse(w->why, "write seconds from 0 to 3600 behind `pool_timeout=`");
	/* To Prisma 0 is no timeout; here everything that waits has one, and an hour is the
	 * longest. */
	w->settings->acquire_timeout_ms = (seconds ? seconds : 3600) * 1000;
	return 0;
}

static int param_pgbouncer(struct rewrite *w, const char *value)
{
	if (strcmp(value, "true") == 0)
		w->settings->no_prepare = true;
	else if (strcmp(value, "false") != 0)
		return refuse(w->why, "write true or false behind `pgbouncer=`");
	return 0;
}

static int param_prepared(struct rewrite *w, const char *value)
{
	if (strcmp(value, "false") == 0)
		w->settings->no_prepare = true;
	else if (strcmp(value, "true") != 0)
		return refuse(w->why, "write true or false behind `prepared_statements=`");
	return 0;
}

static int param_statement_cache(struct rewrite *w, const char *value)
{
	if (strcmp(value, "0") == 0)
		w->settings->no_prepare = true;
	return 0;
}

static int param_ssl_accept(struct rewrite *w, const char *value)
{
	if (strcmp(value, "strict") == 0)
		w->ssl_strict = true;
	else if (strcmp(value, "accept_invalid_certs") != 0)
		return refuse(w->why, "write strict or accept_invalid_certs behind `sslaccept=`");
	return 0;
}

static int param_ssl_identity(struct rewrite *w, const char *value)
{
	return refuse(
	    w->why, "libpq does not read the PKCS#12 file of `sslidentity`: extract "
	            "certificate and key with `openssl pkcs12` and write sslcert=FILE&sslkey=FILE");
}

static int param_without_effect(struct rewrite *w, const char *value)
{
	return 0;
}

/* docs/CONFIGURATION.md (print.c) explains them. */
static const struct orm_param {
	const char *name;
	int (*apply)(struct rewrite *w, const char *value);
} orm_params[] = {
    {"schema", param_schema},
    {"connection_limit", param_pool_max},
    {"pool", param_pool_max},
    {"pool_timeout", param_pool_timeout},
    {"pgbouncer", param_pgbouncer},
    {"prepared_statements", param_prepared},
    {"statement_cache_size", param_statement_cache},
    {"sslaccept", param_ssl_accept},
    {"sslidentity", param_ssl_identity},
    {"socket_timeout", param_without_effect},
    {"max_connection_lifetime", param_without_effect},
    {"max_idle_connection_lifetime", param_without_effect},
    {"single_use_connections", param_without_effect},
};

/* ---- the query --------------------------------------------------------------------------------
 */

static bool is_libpq_keyword(const char *name)
{
	PQconninfoOption *all = PQconninfoParse("", NULL);
	bool found = false;

	for (PQconninfoOption *o = all; o && o->keyword && !found; o++)
		found = strcmp(o->keyword, name) == 0;
	PQconninfoFree(all);
	return found;
}

static void keep(struct rewrite *w, const char *name, const char *value)
{
	buf_addf(&w->kept, "%c%s=", w->kept.len ? '&' : '?', name);
	add_encoded(&w->kept, value);
}

static int libpq_param(struct rewrite *w, const char *name, const char *value)
{
	if (strcmp(name, "options") == 0) {
		free(w->options);
		w->options = xstrdup(value);
		return 0;
	}
	if (strcmp(name, "ssl") == 0) { /* JDBC's and node's */
		if (strcmp(value, "true") != 0)
			return refuse(w->why,
			              "write sslmode=disable, prefer or require instead of `ssl=`");
		keep(w, "sslmode", "require");
		return 0;
	}
	if (!is_libpq_keyword(name))
		return refuse(
		    w->why, "`%s` is no parameter that libpq or Provost knows: leave it out", name);
	w->ssl_cert |= strcmp(name, "sslcert") == 0;
	w->ssl_key |= strcmp(name, "sslkey") == 0;
	keep(w, name, value);
	return 0;
}

static int read_param(struct rewrite *w, const char *s, size_t n)
{
	size_t name_len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	_cleanup_free_ char *value = NULL;
	char name[PARAM_NAME_MAX + 1];

	/* What is not a name may be a piece of a password that should have been encoded: not shown.
	 */
	if (name_len == 0 || name_len > PARAM_NAME_MAX || name_len >= n || s[name_len] != '=')
		return refuse(
		    w->why,
		    "write each parameter behind the `?` as name=value, and `?`, `/`, `&` and "
		    "`@` in a password as %%3F, %%2F, %%26 and %%40");
	memcpy(name, s, name_len);
	name[name_len] = '\0';
	value = decode(s + name_len + 1, n - name_len - 1);
	if (!value)
		return refuse(
		    w->why,
		    "the value of `%s` has a `%%` without two hexadecimal digits: write %%25",
		    name);

	for (size_t i = 0; i < ELEMENTSOF(orm_params); i++) {
		if (strcmp(orm_params[i].name, name) == 0)
			return orm_params[i].apply(w, value);
	}
	return libpq_param(w, name, value);
}

static int read_query(struct rewrite *w, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "&");

		if (n > 0) {
			int r = read_param(w, s, n);

			if (r < 0)
				return r;
		}
		s += n + (s[n] == '&');
	}
	return 0;
}

static bool is_plain_identifier(const char *s)
{
	return !isdigit((unsigned char)*s) &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* `-c search_path=`, quoted for the server's list of names and then for its splitting of options.
 */
static void add_search_path(struct buf *b, const char *schema)
{
	bool plain = is_plain_identifier(schema);

	buf_adds(b, "-c search_path=");
	if (!plain)
		buf_addc(b, '"');
	for (const char *s = schema; *s; s++) {
		if (*s == '"')
			buf_addc(b, '"');
		if (*s == '\\' || isspace((unsigned char)*s))
			buf_addc(b, '\\');
		buf_addc(b, *s);
	}
	if (!plain)
		buf_addc(b, '"');
}

static void keep_options(struct rewrite *w)
{
	_cleanup_buf_ struct buf b = {0};

	if (w->options)
		buf_adds(&b, w->options);
	if (w->schema) {
		if (b.len)
			buf_addc(&b, ' ');
		add_search_path(&b, w->schema);
	}
	if (b.len) {
		buf_addc(&b, '\0');
		ALWAYS(!b.failed);
		keep(w, "options", b.data);
	}
}

/* ---- what libpq makes of it -------------------------------------------------------------------
 */

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

	if (is_url && looks_split(all))
		return refuse(
		    why,
		    "the port is no number from 1 to 65535, or host or database hold an `@`: "
		    "in user and password write `/`, `@`, `:`, `?` and `%%` as %%2F, %%40, %%3A, "
		    "%%3F and %%25");
	if (port && !are_ports(port))
		return refuse(why, "write the port as a number from 1 to 65535");
	if (mode && *mode && !is_ssl_mode(mode))
		return refuse(
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
		return refuse(why, "write a URL (postgresql://user:password@host:port/database) or "
		                   "keywords (host=... dbname=...)");
	return refuse(why, "libpq cannot read it (%.*s)", (int)MIN(n, (size_t)200), message);
}

static int check_conninfo(const char *conninfo, bool is_url, const struct rewrite *w,
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
	if (r == 0 && w && w->ssl_strict && !(mode && strncmp(mode, "verify-", 7) == 0))
		r = refuse(why, "instead of sslaccept=strict write sslmode=verify-full and "
		                "sslrootcert=FILE, the certificates to trust");
	PQconninfoFree(all);
	return r;
}

/* ---- the URL ----------------------------------------------------------------------------------
 */

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
		return refuse(
		    why,
		    "this is a URL for JDBC: write postgresql://user:password@host:port/database, "
		    "with user and password before the host and without `jdbc:`");
	if ((base == n || s[base] == '+') &&
	    ((base == 10 && strncasecmp(s, "postgresql", 10) == 0) ||
	     (base == 8 && strncasecmp(s, "postgres", 8) == 0)))
		return 0;
	return refuse(why, "this is no URL of a PostgreSQL database: write "
	                   "postgresql://user:password@host:port/database");
}

/* Where the query begins. As libpq has it: a `?` before the `@` belongs to user or password. */
static const char *find_query(const char *rest)
{
	const char *at = rest + strcspn(rest, "@/");
	const char *from = *at == '@' ? at : rest;

	return from + strcspn(from, "?");
}

static int check_ssl_files(const struct rewrite *w)
{
	if (w->ssl_cert && !w->ssl_key)
		return refuse(
		    w->why,
		    "`sslcert` is the server's certificate to Prisma and the client's to "
		    "libpq: write sslrootcert=FILE for the server's, sslcert=FILE&sslkey=FILE "
		    "for the client's");
	return 0;
}

static int rewrite_url(struct rewrite *w, const char *text, size_t scheme)
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
	r = check_conninfo(plain, true, NULL, w->why);
	if (r < 0)
		return r;
	r = read_query(w, *query ? query + 1 : query);
	if (r < 0)
		return r;
	r = check_ssl_files(w);
	if (r < 0)
		return r;
	keep_options(w);
	ALWAYS(!w->kept.failed);
	buf_add(&b, w->kept.data, w->kept.len);
	whole = buf_take(&b, NULL);
	ALWAYS(whole);
	r = check_conninfo(whole, true, w, w->why);
	if (r < 0)
		return r;
	w->settings->conninfo = whole;
	whole = NULL;
	return 0;
}

static int read_url(const char *text, size_t scheme, struct url_settings *s, char why[URL_WHY_MAX])
{
	struct rewrite w = {.settings = s, .why = why};
	int r = check_scheme(text, scheme, why);

	if (r == 0)
		r = rewrite_url(&w, text, scheme);
	buf_done(&w.kept);
	free(w.options);
	free(w.schema);
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

/* ---- showing ----------------------------------------------------------------------------------
 */

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
