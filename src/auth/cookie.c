#include "cookie.h"
#include "refuse.h"

#include <errno.h>
#include <string.h>

struct part {
	const char *data; /* NULL: not there */
	size_t len;
};

/* What is there under one name. */
struct session {
	struct part whole, chunk[AUTH_CHUNKS_MAX];
	size_t chunks;
	bool malformed;
};

static void put(struct session *s, struct part *to, const char *value, size_t n)
{
	/* Twice: one of them is another path's or another domain's, and which is not said. */
	if (to->data)
		s->malformed = true;
	to->data = value;
	to->len = n;
}

/* The number behind the name: decimal, without leading zeros. */
static int chunk_number(const char *s, size_t n)
{
	int number = 0;

	if (n == 0 || n > 2 || (n == 2 && s[0] == '0'))
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		number = number * 10 + (s[i] - '0');
	}
	return number < AUTH_CHUNKS_MAX ? number : -1;
}

/* `rest`: the name behind `next-auth.session-token`. */
static void take_named(struct session *s, const char *rest, size_t n, const char *value, size_t len)
{
	int number;

	if (n == 0) {
		put(s, &s->whole, value, len);
		return;
	}
	if (rest[0] != '.')
		return; /* another cookie whose name begins alike */
	number = chunk_number(rest + 1, n - 1);
	if (number < 0) {
		s->malformed = true;
		return;
	}
	put(s, &s->chunk[number], value, len);
	s->chunks++;
}

static bool starts(const char *s, size_t n, const char *with)
{
	size_t len = strlen(with);

	return n >= len && memcmp(s, with, len) == 0;
}

enum { PLAIN, SECURE, NAMES };
static const char *const names[NAMES] = {
    [PLAIN] = "next-auth.session-token",
    [SECURE] = "__Secure-next-auth.session-token",
};

static void take_pair(struct session session[NAMES], const char *s, size_t n)
{
	const char *equals;
	size_t name;

	while (n > 0 && (*s == ' ' || *s == '\t')) {
		s++;
		n--;
	}
	while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	equals = memchr(s, '=', n);
	if (!equals)
		return;
	name = (size_t)(equals - s);
	for (int i = 0; i < NAMES; i++) {
		size_t len = strlen(names[i]);

		if (starts(s, name, names[i]))
			take_named(&session[i], s + len, name - len, equals + 1, n - name - 1);
	}
}

static bool append(const struct part *p, char token[AUTH_TOKEN_MAX], size_t *len)
{
	if (p->len > AUTH_TOKEN_MAX - *len)
		return false;
	memcpy(token + *len, p->data, p->len);
	*len += p->len;
	return true;
}

static int join(const struct session *s, char token[AUTH_TOKEN_MAX], size_t *ret_len,
                const char **reason)
{
	size_t len = 0;

	if (s->malformed || (s->whole.data && s->chunks > 0))
		return refuse(reason, -EBADMSG, "the session cookie is there more than once");
	if (s->whole.data && !append(&s->whole, token, &len))
		return refuse(reason, -EMSGSIZE, "the session cookie is too large");
	/* No chunk is there twice, so that many in a row are all of them. */
	for (size_t i = 0; i < s->chunks; i++) {
		if (!s->chunk[i].data)
			return refuse(reason, -EBADMSG, "a chunk of the session cookie is missing");
		if (!append(&s->chunk[i], token, &len))
			return refuse(reason, -EMSGSIZE, "the session cookie is too large");
	}
	*ret_len = len;
	return 0;
}

int cookie_session(const char *field, size_t n, char token[AUTH_TOKEN_MAX], size_t *ret_len,
                   const char **reason)
{
	struct session session[NAMES] = {0};

	while (n > 0) {
		const char *end = memchr(field, ';', n);
		size_t len = end ? (size_t)(end - field) : n;

		take_pair(session, field, len);
		field += len + (end ? 1 : 0);
		n -= len + (end ? 1 : 0);
	}
	for (int i = SECURE; i >= PLAIN; i--) {
		const struct session *s = &session[i];

		if (s->malformed || s->whole.data || s->chunks > 0)
			return join(s, token, ret_len, reason);
	}
	return refuse(reason, -ENOKEY, "there are no credentials");
}
