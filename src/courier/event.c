#include "event.h"

#include <errno.h>
#include <json-c/json.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

enum {
	IPAD = 0x36, /* RFC 2104, section 2 */
	OPAD = 0x5C,
	DIGEST_BYTES = CHANGE_DIGEST_LEN / 2,
};

/* ---- genuine ------------------------------------------------------------------------- */

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unhex(const char *text, size_t n, unsigned char *out)
{
	for (size_t i = 0; i < n; i++) {
		int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);

		if (low < 0)
			return false;
		out[i] = (unsigned char)(high << 4 | low);
	}
	return true;
}

int event_key(const char *ipad, const char *opad, unsigned char key[EVENT_KEY_LEN])
{
	unsigned char outer[EVENT_KEY_LEN];
	bool good = strlen(ipad) == 2 * EVENT_KEY_LEN && strlen(opad) == 2 * EVENT_KEY_LEN &&
	            unhex(ipad, EVENT_KEY_LEN, key) && unhex(opad, EVENT_KEY_LEN, outer);

	for (size_t i = 0; good && i < EVENT_KEY_LEN; i++) {
		key[i] ^= IPAD;
		good = (outer[i] ^ OPAD) == key[i];
	}
	OPENSSL_cleanse(outer, sizeof outer);
	return good ? 0 : -EINVAL;
}

bool event_is_genuine(const unsigned char key[EVENT_KEY_LEN], const char *digest, const char *text)
{
	unsigned char claimed[DIGEST_BYTES], found[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	return unhex(digest, sizeof claimed, claimed) &&
	       HMAC(EVP_sha256(), key, EVENT_KEY_LEN, (const unsigned char *)text, strlen(text),
	            found, &n) &&
	       n == sizeof claimed && CRYPTO_memcmp(claimed, found, n) == 0;
}

/* ---- what it says -------------------------------------------------------------------- */

static bool skip(const char **s, const char *what)
{
	size_t n = strlen(what);

	if (strncmp(*s, what, n) != 0)
		return false;
	*s += n;
	return true;
}

static bool take_id(const char **s, int64_t *ret)
{
	char *end;

	if (**s < '1' || **s > '9')
		return false;
	errno = 0;
	*ret = strtoll(*s, &end, 10);
	*s = end;
	return errno == 0;
}

/* A JSON string. json-c, to which it is given with its quotes, undoes the escapes. */
static int take_text(const char **s, char **ret)
{
	const char *end = *s;
	struct json_tokener *t;
	struct json_object *o;
	int r = -EINVAL;

	if (*end++ != '"')
		return -EINVAL;
	while (*end && *end != '"')
		end += *end == '\\' && end[1] ? 2 : 1;
	if (!*end)
		return -EINVAL;
	t = json_tokener_new();
	if (!t)
		return -ENOMEM;
	o = json_tokener_parse_ex(t, *s, (int)(end + 1 - *s));
	if (json_object_is_type(o, json_type_string) &&
	    strlen(json_object_get_string(o)) == (size_t)json_object_get_string_len(o)) {
		*ret = strdup(json_object_get_string(o));
		r = *ret ? 0 : -ENOMEM;
	}
	json_object_put(o);
	json_tokener_free(t);
	*s = end + 1;
	return r;
}

/* What is left is the value and the end. */
static int take_data(const char *s, struct event *e)
{
	size_t n;

	if (!strcmp(s, "\"ref\":true}"))
		return 0;
	if (!skip(&s, "\"data\":"))
		return -EINVAL;
	n = strlen(s);
	if (n < 2 || s[n - 1] != '}')
		return -EINVAL;
	e->data = s;
	e->data_len = n - 1;
	return 0;
}

static int parse(const char *s, struct event *e)
{
	int r;

	if (!skip(&s, "{\"id\":") || !take_id(&s, &e->id) || !skip(&s, ",\"room\":"))
		return -EINVAL;
	r = take_text(&s, &e->room);
	if (r < 0)
		return r;
	if (!skip(&s, ",\"name\":"))
		return -EINVAL;
	r = take_text(&s, &e->name);
	if (r < 0)
		return r;
	e->durable = strncmp(e->room, "user:", 5) == 0;
	return skip(&s, ",") ? take_data(s, e) : -EINVAL;
}

int event_parse(const char *text, struct event *ret)
{
	struct event e = {0};
	int r = parse(text, &e);

	if (r < 0)
		event_done(&e);
	else
		*ret = e;
	return r;
}

void event_done(struct event *e)
{
	free(e->room);
	free(e->name);
	*e = (struct event){0};
}
