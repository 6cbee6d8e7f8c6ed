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

int key_build(const struct endpoint *e, const struct values *v, struct buf *out)
{
	size_t start = out->len;

	ALWAYS(e->key_prefix && v->count == e->params);
	buf_add(out, e->key_prefix, e->key_prefix_len);
	for (size_t i = 0; i < v->count; i++) {
		const char *text = values_get(v, i);

		buf_addc(out, text ? TEXT : NOTHING);
		if (text)
			buf_add(out, text, strlen(text) + 1);
	}
	if (!out->failed)
		return 0;
	out->len = start;
	return -ENOMEM;
}

void key_values(const struct endpoint *e, const void *key, size_t len, const char **value)
{
	const char *p = key, *end = p + len;

	ALWAYS(len >= e->key_prefix_len && memcmp(p, e->key_prefix, e->key_prefix_len) == 0);
	p += e->key_prefix_len;
	for (size_t i = 0; i < e->params; i++) {
		ALWAYS(p < end);
		value[i] = *p++ == TEXT ? p : NULL;
		if (value[i])
			p += strnlen(p, (size_t)(end - p)) + 1;
	}
	ALWAYS(p == end);
}

const char *key_endpoint(const void *key)
{
	return key;
}
