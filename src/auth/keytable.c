#include "keytable.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <xxhash.h>

#include "refuse.h"

enum { KEYTABLE_MAGIC = 0x4b455953 };

struct row {
	char id[APIKEY_ID_LEN + 1];
	unsigned char digest[APIKEY_DIGEST_LEN];
	struct identity *identity;
	bool revoked;
};

struct keytable {
	unsigned magic;
	atomic_uint refs;
	size_t count;
	uint32_t *slot; /* open addressing: index of a row + 1; 0: free */
	size_t slots;   /* a power of two, at least twice the rows */
	struct row row[];
};

/* ---- finding ------------------------------------------------------------------------- */

/* Ids are public, and rows are chosen by whoever administers: any hash will do. */
static size_t slot_of(const struct keytable *t, const char *id)
{
	size_t i = (size_t)XXH3_64bits(id, APIKEY_ID_LEN) & (t->slots - 1);

	while (t->slot[i] != 0 && strcmp(t->row[t->slot[i] - 1].id, id) != 0)
		i = (i + 1) & (t->slots - 1);
	return i;
}

static const struct row *find(const struct keytable *t, const char *id)
{
	uint32_t at = t->slot[slot_of(t, id)];

	return at ? &t->row[at - 1] : NULL;
}

static int check_row(const struct row *r, int64_t now_s, const char **reason)
{
	if (r->revoked)
		return refuse(reason, -EKEYREVOKED, "the API key is revoked");
	if (now_s >= r->identity->expires_s)
		return refuse(reason, -EKEYEXPIRED, "the API key has expired");
	return 0;
}

int keytable_identify(const struct keytable *t, const char *text, size_t n, int64_t now_s,
                      struct identity **ret, const char **reason)
{
	/* What is compared when there is no such id, so that both take as long. */
	static const unsigned char nothing[APIKEY_DIGEST_LEN];
	unsigned char digest[APIKEY_DIGEST_LEN];
	char id[APIKEY_ID_LEN + 1];
	const struct row *row;
	bool same;
	int r;

	CHECK_MAGIC(t, KEYTABLE_MAGIC);
	if (apikey_parse(text, n, id) < 0)
		return refuse(reason, -EBADMSG, "the API key is malformed");
	if (apikey_digest(text, n, digest) < 0)
		return refuse(reason, -ENOMEM, "out of memory");
	row = find(t, id);
	same = sodium_memcmp(digest, row ? row->digest : nothing, sizeof digest) == 0;
	if (!row || !same)
		return refuse(reason, -EKEYREJECTED, "the API key is not known");
	r = check_row(row, now_s, reason);
	if (r == 0)
		*ret = identity_ref(row->identity);
	return r;
}

int keytable_check(const struct keytable *t, const struct identity *i, int64_t now_s,
                   const char **reason)
{
	const struct row *row;

	CHECK_MAGIC(t, KEYTABLE_MAGIC);
	row = find(t, i->token_id);
	if (!row)
		return refuse(reason, -EKEYREJECTED, "the API key is not known");
	if (strcmp(row->identity->subject, i->subject) != 0 ||
	    strcmp(row->identity->roles_text, i->roles_text) != 0 ||
	    row->identity->expires_s < i->expires_s)
		return refuse(reason, -EKEYREJECTED, "the API key's rights have changed");
	return check_row(row, now_s, reason);
}

size_t keytable_count(const struct keytable *t)
{
	return t->count;
}

bool keytable_needs(const struct keytable *t, const struct revocation *r, int64_t now_s)
{
	if (r->kind == REVOKE_TOKEN) {
		const struct row *row = find(t, r->what);

		return row && !row->revoked && now_s < row->identity->expires_s;
	}
	for (size_t i = 0; i < t->count; i++) {
		const struct row *row = &t->row[i];

		if (!row->revoked && now_s < row->identity->expires_s &&
		    row->identity->issued_s <= r->issued_before_s &&
		    strcmp(row->identity->subject, r->what) == 0)
			return true;
	}
	return false;
}

/* ---- making one ---------------------------------------------------------------------- */

static const char *check_key(const struct apikey *k, struct role_set *roles)
{
	if (!apikey_id_valid(k->id, strnlen(k->id, sizeof k->id)))
		return "has an id that is not 12 characters of a-z and 2-7";
	if (!k->subject || !is_plain_text(k->subject, strlen(k->subject), IDENTITY_SUBJECT_MAX))
		return "has a subject that is not a text of 1 to 255 bytes";
	if (k->expires_s < 0)
		return "expires before 1970";
	for (size_t i = 0; i < k->roles.count; i++) {
		const char *name = k->roles.item[i];
		int r = role_set_add(roles, name, strlen(name));

		if (r == -E2BIG)
			return "has more than 64 roles";
		if (r < 0)
			return "has a role that is not a name of 1 to 64 bytes without commas";
	}
	return NULL;
}

static bool add_row(struct keytable *t, const struct apikey *k, struct errors *errs)
{
	struct role_set roles = {.count = 0};
	const char *why = check_key(k, &roles);
	struct row *row = &t->row[t->count];
	size_t at;
	struct identity_parts p = {
	    .kind = IDENTITY_API_KEY,
	    .subject = k->subject,
	    .token_id = k->id,
	    .roles = &roles,
	    .issued_s = k->created_s,
	    .expires_s = k->expires_s > 0 ? k->expires_s : INT64_MAX,
	};

	if (why) {
		errors_add(errs, NULL, 0, "API key `%.12s` %s", k->id, why);
		return false;
	}
	memcpy(row->id, k->id, sizeof row->id);
	at = slot_of(t, row->id);
	if (t->slot[at] != 0) {
		errors_add(errs, NULL, 0, "API key `%s` is there twice", k->id);
		return false;
	}
	row->identity = identity_new_plain(&p);
	if (!row->identity) {
		errors_add(errs, NULL, 0, "API keys: out of memory");
		return false;
	}
	memcpy(row->digest, k->digest, sizeof row->digest);
	row->revoked = k->revoked;
	t->slot[at] = (uint32_t)++t->count;
	return true;
}

struct keytable *keytable_new(const struct apikey *list, size_t n, struct errors *errs)
{
	struct keytable *t;
	bool ok = true;

	if (n > APIKEYS_MAX) {
		errors_add(errs, NULL, 0, "there are %zu API keys, more than %d: delete some", n,
		           APIKEYS_MAX);
		return NULL;
	}
	t = xcalloc(1, sizeof *t + n * sizeof t->row[0]);
	t->magic = KEYTABLE_MAGIC;
	atomic_init(&t->refs, 1);
	for (t->slots = 16; t->slots < 2 * n; t->slots *= 2)
		;
	t->slot = xcalloc(t->slots, sizeof *t->slot);
	for (size_t i = 0; i < n; i++)
		ok = add_row(t, &list[i], errs) && ok;
	if (!ok)
		keytable_unref(&t);
	return t;
}

struct keytable *keytable_ref(struct keytable *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void keytable_unref(struct keytable **tp)
{
	struct keytable *t = *tp;

	*tp = NULL;
	if (!t)
		return;
	CHECK_MAGIC(t, KEYTABLE_MAGIC);
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (size_t i = 0; i < t->count; i++)
		identity_unref(&t->row[i].identity);
	free(t->slot);
	t->magic = 0;
	free(t);
}
