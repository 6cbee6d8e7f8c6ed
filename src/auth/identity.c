#include "identity.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "json.h"

const char *identity_kind_name(enum identity_kind k)
{
	static const char *const name[] = {"none", "jwt", "api-key", "cookie"};

	ALWAYS((size_t)k < ELEMENTSOF(name));
	return name[k];
}

bool identity_allows(const struct identity *i, const struct strlist *roles)
{
	for (size_t k = 0; k < i->roles.count; k++)
		if (strlist_has_nocase(roles, i->roles.item[k]))
			return true;
	return false;
}

struct identity *identity_ref(struct identity *i)
{
	/* Relaxed: whoever raises it already holds the object. */
	unsigned before = atomic_fetch_add_explicit(&i->refs, 1, memory_order_relaxed);

	ALWAYS(before > 0);
	return i;
}

void identity_unref(struct identity **ip)
{
	struct identity *i = *ip;
	unsigned before;

	*ip = NULL;
	if (!i)
		return;
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	before = atomic_fetch_sub_explicit(&i->refs, 1, memory_order_acq_rel);
	ALWAYS(before > 0);
	if (before == 1)
		free(i);
}

/* ---- making one ---------------------------------------------------------------------- */

bool is_plain_text(const char *s, size_t n, size_t max)
{
	if (n == 0 || n > max || utf8_length(s, n) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x20 || c == 0x7f)
			return false;
		if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0)
			return false;
	}
	return true;
}

int role_set_add(struct role_set *r, const char *name, size_t n)
{
	char *to;

	if (!is_plain_text(name, n, IDENTITY_ROLE_MAX) || memchr(name, ',', n))
		return -EINVAL;
	if (r->count == IDENTITY_ROLES_MAX)
		return -E2BIG;
	to = r->name[r->count++];
	memcpy(to, name, n);
	to[n] = '\0';
	for (; *to; to++)
		if (*to >= 'A' && *to <= 'Z')
			*to = (char)(*to - 'A' + 'a');
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void sort_once(struct role_set *r)
{
	size_t kept = 0;

	qsort(r->name, r->count, sizeof r->name[0], compare_names);
	for (size_t i = 0; i < r->count; i++) {
		if (kept > 0 && strcmp(r->name[kept - 1], r->name[i]) == 0)
			continue;
		if (kept != i)
			memcpy(r->name[kept], r->name[i], sizeof r->name[0]);
		kept++;
	}
	r->count = kept;
}

static char *put(char **at, const char *s)
{
	size_t n = strlen(s) + 1;
	char *to = memcpy(*at, s, n);

	*at += n;
	return to;
}

/* The names one after the other, and once more joined. */
static void put_roles(struct identity *i, const struct role_set *r, char **at)
{
	char *joined;

	for (size_t k = 0; k < r->count; k++)
		i->roles.item[k] = put(at, r->name[k]);
	i->roles.count = r->count;
	joined = *at;
	i->roles_text = joined;
	for (size_t k = 0; k < r->count; k++) {
		if (k > 0)
			*joined++ = ',';
		joined = stpcpy(joined, r->name[k]);
	}
	*joined++ = '\0';
	*at = joined;
}

struct identity *identity_new(const struct identity_parts *p)
{
	size_t names = 0, size;
	struct identity *i;
	char *at;

	sort_once(p->roles);
	for (size_t k = 0; k < p->roles->count; k++)
		names += strlen(p->roles->name[k]) + 1;
	size = sizeof *i + p->roles->count * sizeof(char *) + 2 * names + 1 + strlen(p->subject) +
	       1 + strlen(p->claims) + 1 + strlen(p->token_id) + 1;
	i = malloc(size);
	if (!i)
		return NULL;
	*i = (struct identity){
	    .kind = p->kind,
	    .from_cookie = p->kind == IDENTITY_COOKIE,
	    .issued_s = p->issued_s,
	    .expires_s = p->expires_s,
	    .origin = p->origin,
	};
	atomic_init(&i->refs, 1);
	i->roles.item = (char **)(i + 1);
	at = (char *)(i->roles.item + p->roles->count);
	i->subject = put(&at, p->subject);
	i->claims = put(&at, p->claims);
	i->token_id = put(&at, p->token_id);
	put_roles(i, p->roles, &at);
	ALWAYS(at <= (char *)i + size);
	return i;
}

struct identity *identity_new_plain(struct identity_parts *p)
{
	_cleanup_json_ json_t *roles = json_array();
	_cleanup_json_ json_t *o = NULL;
	_cleanup_free_ char *text = NULL;

	sort_once(p->roles);
	for (size_t k = 0; k < p->roles->count; k++)
		json_array_append_new(roles, json_string(p->roles->name[k]));
	o = json_pack("{s:s, s:O}", "sub", p->subject, "roles", roles);
	text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	if (!text)
		return NULL;
	p->claims = text;
	return identity_new(p);
}
