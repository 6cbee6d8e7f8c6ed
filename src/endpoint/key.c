#include "provost/key.h"

#include <errno.h>
#include <string.h>

enum { NOTHING = 0, TEXT = 1 };

void key_seal(struct endpoint *e)
{
	size_t name = strlen(e->name) + 1;

	free(e->key_prefix);
	e->key_prefix_len = name + sizeof(e->fingerprint);
	e->key_prefix = xcalloc(e->key_prefix_len, 1);
	memcpy(e->key_prefix, e->name, name);
	memcpy(e->key_prefix + name, &e->fingerprint, sizeof(e->fingerprint));
}

static void add(struct buf *out, const char *text)
{
	size_t n = text ? strlen(text) + 1 : 0;
	char *to = buf_reserve(out, 1 + n);

	if (!to)
		return;
	*to = text ? TEXT : NOTHING;
	if (text)
		memcpy(to + 1, text, n);
	out->len += 1 + n;
}

int key_build(const struct endpoint *e, const struct values *v, const struct key_caller *caller,
              struct buf *out)
{
	size_t start = out->len;

	ALWAYS(e->key_prefix && v->count == e->params);
	buf_add(out, e->key_prefix, e->key_prefix_len);
	for (size_t i = 0; i < v->count; i++)
		add(out, values_get(v, i));
	if (endpoint_binds_body(e))
		add(out, values_body(v));
	if (e->cache.vary_sub)
		add(out, caller->subject);
	if (e->cache.vary_role)
		add(out, caller->roles);
	if (e->cache.vary_claims)
		add(out, caller->claims);
	if (!out->failed)
		return 0;
	out->len = start;
	return -ENOMEM;
}

static const char *take(const char **p, const char *end)
{
	const char *text = NULL;

	ALWAYS(*p < end);
	if (*(*p)++ == TEXT) {
		text = *p;
		*p += strnlen(text, (size_t)(end - text)) + 1;
	}
	return text;
}

void key_values(const struct endpoint *e, const void *key, size_t len, const char **value,
                const char **ret_body, struct key_caller *ret_caller)
{
	const char *p = key, *end = p + len;
	struct key_caller caller = {0};
	const char *body = NULL;

	ALWAYS(len >= e->key_prefix_len && memcmp(p, e->key_prefix, e->key_prefix_len) == 0);
	p += e->key_prefix_len;
	for (size_t i = 0; i < e->params; i++)
		value[i] = take(&p, end);
	if (endpoint_binds_body(e))
		body = take(&p, end);
	if (e->cache.vary_sub)
		caller.subject = take(&p, end);
	if (e->cache.vary_role)
		caller.roles = take(&p, end);
	if (e->cache.vary_claims)
		caller.claims = take(&p, end);
	ALWAYS(p == end);
	if (ret_body)
		*ret_body = body;
	if (ret_caller)
		*ret_caller = caller;
}

const char *key_endpoint(const void *key)
{
	return key;
}
