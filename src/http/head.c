#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "http_impl.h"

struct reading {
	struct head *head;
	unsigned hosts, lengths, codings;
	bool chunked;
};

/* RFC 9110, section 5.6.2. */
static bool is_token(const char *s, size_t n)
{
	if (n == 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && (!s[i] || !strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	return true;
}

static bool is_field_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7F)
			return false;
	return true;
}

static void refuse(struct head *h, unsigned status, const char *why)
{
	if (h->status)
		return;
	h->status = status;
	h->why = why;
}

static void read_length(struct reading *r, const char *v, size_t n)
{
	uint64_t length = 0;
	bool digits = n > 0 && n <= 18;
	for (size_t i = 0; i < n && digits; i++) {
		digits = v[i] >= '0' && v[i] <= '9';
		length = length * 10 + (uint64_t)(v[i] - '0');
	}
	if (!digits)
		refuse(r->head, 400, "Content-Length is not a plain number.");
	else
		r->head->length = length;
	r->lengths++;
}

static bool is(const char *name, size_t n, const char *known)
{
	return strlen(known) == n && !strncasecmp(name, known, n);
}

static enum MHD_Result read_field(void *arg, enum MHD_ValueKind kind, const char *name, size_t n,
                                  const char *value, size_t value_n)
{
	struct reading *r = arg;
	struct head *h = r->head;
	(void)kind;
	if (!value) {
		value = "";
		value_n = 0;
	}
	if (!is_token(name, n) || !is_field_value(value, value_n))
		refuse(h, 400, "A header field is malformed.");
	else if (is(name, n, "host")) {
		h->host = value;
		r->hosts++;
	} else if (is(name, n, "content-length"))
		read_length(r, value, value_n);
	else if (is(name, n, "transfer-encoding")) {
		r->chunked = is(value, value_n, "chunked");
		r->codings++;
	} else if (is(name, n, "origin"))
		h->origin = value;
	else if (is(name, n, "x-request-id"))
		h->request_id = value;
	else if (is(name, n, "access-control-request-method"))
		h->preflight_method = value;
	else if (is(name, n, "forwarded") || !strncasecmp(name, "x-forwarded-", MIN(n, 12u)))
		refuse(h, 403,
		       "Requests that came through a proxy are refused, because callers are not "
		       "identified: this server answers its own machine only.");
	return MHD_YES;
}

/* While callers are not identified, a name that an attacker points at this machine (DNS rebinding)
 * must not reach it through somebody's browser. */
static bool is_local_name(const char *host)
{
	static const char *const names[] = {"localhost", "[::1]"};
	size_t n = strcspn(host[0] == '[' ? strchrnul(host, ']') : host, ":");
	if (host[0] == '[')
		n += (size_t)(strchrnul(host, ']') - host);
	for (size_t i = 0; i < ELEMENTSOF(names); i++)
		if (is(host, n, names[i]))
			return true;
	return !strncmp(host, "127.", 4) && strspn(host, "0123456789.") == n;
}

static bool is_host(const char *host)
{
	return *host && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                             "0123456789.-_:[]%") == strlen(host);
}

void head_read(struct MHD_Connection *c, const char *version, size_t max_body, struct head *ret)
{
	struct reading r = {.head = ret};
	*ret = (struct head){0};
	MHD_get_connection_values_n(c, MHD_HEADER_KIND, read_field, &r);
	if (strcmp(version, "HTTP/1.1") && strcmp(version, "HTTP/1.0"))
		refuse(ret, 505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
	if (r.hosts != 1)
		refuse(ret, 400,
		       r.hosts ? "The Host header is repeated." : "The Host header is missing.");
	else if (!is_host(ret->host))
		refuse(ret, 400, "The Host header is malformed.");
	if (r.lengths > 1)
		refuse(ret, 400, "Content-Length is repeated.");
	if (r.codings && r.lengths)
		refuse(ret, 400, "Content-Length and Transfer-Encoding exclude each other.");
	if (r.codings > 1 || (r.codings && !r.chunked))
		refuse(ret, 400, "The only Transfer-Encoding accepted is chunked.");
	if (r.codings && !strcmp(version, "HTTP/1.0"))
		refuse(ret, 400, "HTTP/1.0 has no Transfer-Encoding.");
	if (ret->length > max_body)
		refuse(ret, 413, "The body is larger than this server accepts.");
	if (!ret->status && !is_local_name(ret->host))
		refuse(ret, 403,
		       "Callers are not identified, so only requests to localhost, 127.0.0.1 or "
		       "[::1] are answered.");
}
