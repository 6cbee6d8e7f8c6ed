#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "http_impl.h"
#include "provost/ws.h"

static const char NOT_WHOLE[] = "The header is not made of whole lines.";

struct reading {
	struct head *head;
	const char *next; /* where the next field line begins */
	unsigned hosts, lengths, codings, authorizations, cookies, ws_keys, ws_versions;
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

/* Eight bytes of which one may be a control character: none is missed, but a tab or a byte beside
 * one may be taken for it. */
static bool is_suspect(const char *s)
{
	const uint64_t ones = 0x0101010101010101;
	uint64_t x;
	memcpy(&x, s, sizeof x);
	return (((x - ones * 0x20) | ((x ^ ones * 0x7F) - ones)) & ~x & ones * 0x80) != 0;
}

/* Tokens make this the longest loop over a head's bytes: eight at a time took a hundredth off a
 * hit. */
static bool is_field_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		while (n - i >= 8 && !is_suspect(s + i))
			i += 8;
		if (i < n && (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7F))
			return false;
	}
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

/* What proxies add. Not all do: this catches a mistake, and keeps nobody out. */
static bool is_of_proxy(const char *name, size_t n)
{
	return is(name, n, "forwarded") || is(name, n, "via") || is(name, n, "x-real-ip") ||
	       (n > 12 && is(name, 12, "x-forwarded-"));
}

/* libmicrohttpd takes its buffer apart in place, so each line must begin where the one before it
 * ended, two bytes on. It does not where libmicrohttpd has been lenient: a NUL cut the line short,
 * it ended in a bare newline, it was folded, or it was dropped. Somebody before us may have read
 * all of these otherwise. */
static void check_line(struct reading *r, const char *name, const char *value, size_t n)
{
	if (name != r->next)
		refuse(r->head, 400, NOT_WHOLE);
	r->next = value + n + strlen("\r\n");
}

/* The same of the last line: it and the empty one behind it have become four NULs. */
static void check_end(struct reading *r)
{
	if (r->next[-2] || r->next[-1] || r->next[0] || r->next[1])
		refuse(r->head, 400, NOT_WHOLE);
}

/* Without the blanks behind it, which libmicrohttpd leaves (RFC 9110, section 5.5). The bytes are
 * those of its own buffer. */
static const char *trim(const char *value, size_t n)
{
	char *end = (char *)(uintptr_t)value + n;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	return value;
}

static unsigned read_credential(struct auth_field *f, const char *value, size_t n)
{
	f->data = trim(value, n);
	f->len = strlen(f->data);
	return 1;
}

static enum MHD_Result read_field(void *arg, enum MHD_ValueKind kind, const char *name, size_t n,
                                  const char *value, size_t value_n)
{
	struct reading *r = arg;
	struct head *h = r->head;
	(void)kind;
	if (!value)
		return MHD_YES; /* not from this header: its fields have at least an empty value */
	check_line(r, name, value, value_n);
	if (!is_token(name, n) || !is_field_value(value, value_n))
		refuse(h, 400, "A header field is malformed.");
	else if (is(name, n, "host")) {
		h->host = trim(value, value_n);
		r->hosts++;
	} else if (is(name, n, "content-length"))
		read_length(r, value, value_n);
	else if (is(name, n, "transfer-encoding")) {
		r->chunked = is(value, value_n, "chunked");
		r->codings++;
	} else if (is(name, n, "origin"))
		h->origin = trim(value, value_n);
	else if (is(name, n, "accept-encoding"))
		accept_add(&h->accept, value, value_n);
	else if (is(name, n, "if-none-match"))
		h->conditional = true;
	else if (is(name, n, "x-request-id"))
		h->request_id = trim(value, value_n);
	else if (is(name, n, "content-type"))
		h->content_type = h->content_type ? "" : trim(value, value_n);
	else if (is(name, n, "content-encoding"))
		h->content_encoding = h->content_encoding ? "" : trim(value, value_n);
	else if (is(name, n, "access-control-request-method"))
		h->preflight_method = trim(value, value_n);
	else if (is(name, n, "authorization"))
		r->authorizations += read_credential(&h->credentials.authorization, value, value_n);
	else if (is(name, n, "cookie"))
		r->cookies += read_credential(&h->credentials.cookie, value, value_n);
	else if (is(name, n, "sec-fetch-site"))
		h->fetch_site = trim(value, value_n);
	else if (is(name, n, "connection"))
		h->upgrades |= ws_has_token(value, value_n, "upgrade");
	else if (is(name, n, "upgrade"))
		h->websocket |= ws_has_token(value, value_n, "websocket");
	else if (is(name, n, "sec-websocket-key")) {
		h->ws_key = trim(value, value_n);
		h->ws_repeated |= r->ws_keys++ > 0;
	} else if (is(name, n, "sec-websocket-version")) {
		h->ws_version = trim(value, value_n);
		h->ws_repeated |= r->ws_versions++ > 0;
	} else if (is_of_proxy(name, n))
		h->proxied = true;
	return MHD_YES;
}

bool head_is_local(struct slice host)
{
	static const char *const names[] = {"localhost", "[::1]"};
	const char *end = host.p + host.n;
	const char *close = host.n && host.p[0] == '[' ? memchr(host.p, ']', host.n) : NULL;
	const char *from = close ? close : host.p;
	const char *colon = memchr(from, ':', (size_t)(end - from));
	size_t n = (size_t)((colon ? colon : end) - host.p);
	for (size_t i = 0; i < ELEMENTSOF(names); i++)
		if (is(host.p, n, names[i]))
			return true;
	if (n < 4 || memcmp(host.p, "127.", 4))
		return false;
	for (size_t i = 0; i < n; i++)
		if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9'))
			return false;
	return true;
}

static bool is_host(const char *host)
{
	static const bool allowed[UCHAR_MAX + 1] = {
	    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['.'] = true,
	    ['-'] = true,         ['_'] = true,         [':'] = true,         ['['] = true,
	    [']'] = true,         ['%'] = true,
	};
	const char *p = host;
	while (allowed[(unsigned char)*p])
		p++;
	return p > host && !*p;
}

void head_read(struct MHD_Connection *c, const struct request_line *l, size_t max_body,
               struct head *ret)
{
	const char *version = l->version;
	struct reading r = {.head = ret, .next = version + strlen(version) + strlen("\r\n")};
	*ret = (struct head){0};
	if (l->method + strlen(l->method) + 1 != l->target.p ||
	    l->target.p + l->target.n + 1 != version)
		refuse(ret, 400, "The request line is malformed.");
	MHD_get_connection_values_n(c, MHD_HEADER_KIND, read_field, &r);
	check_end(&r);
	ret->chunked = r.codings > 0;
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
	if (r.authorizations > 1)
		refuse(ret, 400, "The Authorization header is repeated.");
	if (r.cookies > 1) /* RFC 6265, section 5.4 */
		refuse(ret, 400, "The Cookie header is repeated.");
}
