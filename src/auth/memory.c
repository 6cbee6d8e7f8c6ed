#include <errno.h>
#include <sodium.h>

#include "auth_impl.h"

static void forget(struct auth_memory *m)
{
	if (m->text)
		sodium_memzero(m->text, m->len);
	free(m->text);
	identity_unref(&m->identity);
	*m = (struct auth_memory){.text = NULL};
}

void auth_memory_done(struct auth_memory *m)
{
	forget(m);
}

/* The field that decides; the other one is not looked at, here and in auth_identify. */
static struct auth_field deciding(const struct credentials *c, bool *ret_cookie)
{
	*ret_cookie = !c->authorization.data && c->cookie.data;
	return *ret_cookie ? c->cookie : c->authorization;
}

static bool is_same(const struct auth_memory *m, const struct auth_field *f, bool cookie)
{
	return m->cookie == cookie && m->len == f->len && (m->text != NULL) == (f->data != NULL) &&
	       (f->len == 0 || memcmp(m->text, f->data, f->len) == 0);
}

/* Without memory for the text the identity is kept all the same, for this one answer. */
static void remember(struct auth_memory *m, const struct auth_field *f, bool cookie,
                     uint64_t generation, struct identity *i)
{
	m->identity = i;
	if (f->data) {
		if (f->len > AUTH_CREDENTIALS_MAX)
			return;
		m->text = malloc(f->len ? f->len : 1);
		if (!m->text)
			return;
		memcpy(m->text, f->data, f->len);
		m->len = f->len;
	}
	m->cookie = cookie;
	m->generation = generation;
}

int auth_identify_again(struct auth *a, struct auth_memory *m, const struct credentials *c,
                        int64_t now_s, struct identity **ret, const char **reason)
{
	const struct auth_state *st;
	struct identity *i = NULL;
	struct auth_field f;
	bool cookie;
	int r;

	CHECK_MAGIC(a, AUTH_MAGIC);
	st = auth_state(a);
	f = deciding(c, &cookie);
	if (m->generation == st->generation && now_s < m->identity->expires_s &&
	    is_same(m, &f, cookie)) {
		*ret = m->identity;
		return 0;
	}
	forget(m);
	r = auth_identify_with(a, st, c, now_s, &i, reason);
	if (r < 0)
		return r;
	remember(m, &f, cookie, st->generation, i);
	*ret = i;
	return 0;
}
