#include "urlquery.h"

#include <ctype.h>
#include <errno.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <string.h>

enum { PARAM_NAME_MAX = 40, SCHEMA_MAX = 63 };

#define UNRESERVED "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

int url_refuse(char why[URL_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, URL_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- percent-encoding ---------------------------------------------------------------- */

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

/* ---- parameters of ORMs -------------------------------------------------------------- */

static int param_schema(struct url_query *q, const char *value)
{
	size_t n = strlen(value);

	if (n == 0 || n > SCHEMA_MAX)
		return url_refuse(q->why,
		                  "write a schema's name of 1 to 63 bytes behind `schema=`");
	free(q->schema);
	q->schema = xstrdup(value);
	return 0;
}

static int read_count(const char *s, int64_t max, int64_t *ret)
{
	if (!*s || s[strspn(s, "0123456789")] || strlen(s) > 9 || atoll(s) > max)
		return -EINVAL;
	*ret = atoll(s);
	return 0;
}

static int param_pool_max(struct url_query *q, const char *value)
{
	if (read_count(value, 999999999, &q->settings->pool_max) < 0)
		return url_refuse(
		    q->why, "write a number of connections behind `connection_limit=` or `pool=`");
	return 0;
}

static int param_pool_timeout(struct url_query *q, const char *value)
{
	int64_t seconds;

	if (read_count(value, 3600, &seconds) < 0)
		return url_refuse(q->why, "write seconds from 0 to 3600 behind `pool_timeout=`");
	/* To Prisma 0 is no timeout; here everything that waits has one, and an hour is the
	 * longest. */
	q->settings->acquire_timeout_ms = (seconds ? seconds : 3600) * 1000;
	return 0;
}

static int param_pgbouncer(struct url_query *q, const char *value)
{
	if (strcmp(value, "true") == 0)
		q->settings->no_prepare = true;
	else if (strcmp(value, "false") != 0)
		return url_refuse(q->why, "write true or false behind `pgbouncer=`");
	return 0;
}

static int param_prepared(struct url_query *q, const char *value)
{
	if (strcmp(value, "false") == 0)
		q->settings->no_prepare = true;
	else if (strcmp(value, "true") != 0)
		return url_refuse(q->why, "write true or false behind `prepared_statements=`");
	return 0;
}

static int param_statement_cache(struct url_query *q, const char *value)
{
	if (strcmp(value, "0") == 0)
		q->settings->no_prepare = true;
	return 0;
}

static int param_ssl_accept(struct url_query *q, const char *value)
{
	if (strcmp(value, "strict") == 0)
		q->ssl_strict = true;
	else if (strcmp(value, "accept_invalid_certs") != 0)
		return url_refuse(q->why,
		                  "write strict or accept_invalid_certs behind `sslaccept=`");
	return 0;
}

static int param_ssl_identity(struct url_query *q, const char *value)
{
	return url_refuse(
	    q->why, "libpq does not read the PKCS#12 file of `sslidentity`: extract "
	            "certificate and key with `openssl pkcs12` and write sslcert=FILE&sslkey=FILE");
}

static int param_without_effect(struct url_query *q, const char *value)
{
	return 0;
}

/* docs/CONFIGURATION.md (print.c) explains them. */
static const struct orm_param {
	const char *name;
	int (*apply)(struct url_query *q, const char *value);
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

/* ---- the query ----------------------------------------------------------------------- */

static bool is_libpq_keyword(const char *name)
{
	PQconninfoOption *all = PQconninfoParse("", NULL);
	bool found = false;

	for (PQconninfoOption *o = all; o && o->keyword && !found; o++)
		found = strcmp(o->keyword, name) == 0;
	PQconninfoFree(all);
	return found;
}

static void keep(struct url_query *q, const char *name, const char *value)
{
	buf_addf(&q->kept, "%c%s=", q->kept.len ? '&' : '?', name);
	add_encoded(&q->kept, value);
}

static int libpq_param(struct url_query *q, const char *name, const char *value)
{
	if (strcmp(name, "options") == 0) {
		free(q->options);
		q->options = xstrdup(value);
		return 0;
	}
	if (strcmp(name, "ssl") == 0) { /* JDBC's and node's */
		if (strcmp(value, "true") != 0)
			return url_refuse(
			    q->why, "write sslmode=disable, prefer or require instead of `ssl=`");
		keep(q, "sslmode", "require");
		return 0;
	}
	if (!is_libpq_keyword(name))
		return url_refuse(
		    q->why, "`%s` is no parameter that libpq or Provost knows: leave it out", name);
	q->ssl_cert |= strcmp(name, "sslcert") == 0;
	q->ssl_key |= strcmp(name, "sslkey") == 0;
	keep(q, name, value);
	return 0;
}

static int read_param(struct url_query *q, const char *s, size_t n)
{
	size_t name_len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	_cleanup_free_ char *value = NULL;
	char name[PARAM_NAME_MAX + 1];

	/* What is not a name may be a piece of a password that should have been encoded: not shown.
	 */
	if (name_len == 0 || name_len > PARAM_NAME_MAX || name_len >= n || s[name_len] != '=')
		return url_refuse(
		    q->why,
		    "write each parameter behind the `?` as name=value, and `?`, `/`, `&` and "
		    "`@` in a password as %%3F, %%2F, %%26 and %%40");
	memcpy(name, s, name_len);
	name[name_len] = '\0';
	value = decode(s + name_len + 1, n - name_len - 1);
	if (!value)
		return url_refuse(
		    q->why,
		    "the value of `%s` has a `%%` without two hexadecimal digits: write %%25",
		    name);

	for (size_t i = 0; i < ELEMENTSOF(orm_params); i++) {
		if (strcmp(orm_params[i].name, name) == 0)
			return orm_params[i].apply(q, value);
	}
	return libpq_param(q, name, value);
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

static void keep_options(struct url_query *q)
{
	_cleanup_buf_ struct buf b = {0};

	if (q->options)
		buf_adds(&b, q->options);
	if (q->schema) {
		if (b.len)
			buf_addc(&b, ' ');
		add_search_path(&b, q->schema);
	}
	if (b.len) {
		buf_addc(&b, '\0');
		ALWAYS(!b.failed);
		keep(q, "options", b.data);
	}
}

static int check_ssl_files(const struct url_query *q)
{
	if (q->ssl_cert && !q->ssl_key)
		return url_refuse(
		    q->why,
		    "`sslcert` is the server's certificate to Prisma and the client's to "
		    "libpq: write sslrootcert=FILE for the server's, sslcert=FILE&sslkey=FILE "
		    "for the client's");
	return 0;
}

static int read_params(struct url_query *q, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "&");

		if (n > 0) {
			int r = read_param(q, s, n);

			if (r < 0)
				return r;
		}
		s += n + (s[n] == '&');
	}
	return 0;
}

int url_query_read(struct url_query *q, const char *s)
{
	int r = read_params(q, s);

	if (r == 0)
		r = check_ssl_files(q);
	if (r < 0)
		return r;
	keep_options(q);
	ALWAYS(!q->kept.failed);
	return 0;
}

void url_query_done(struct url_query *q)
{
	buf_done(&q->kept);
	free(q->options);
	free(q->schema);
}
