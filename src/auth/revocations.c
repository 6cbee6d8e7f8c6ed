#include "revocations.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

enum { REVOCATIONS_MAGIC = 0x5245564f };

/* Never changed, but for the count. */
struct entry {
	atomic_uint refs;
	uint64_t hash;
	struct revocation r; /* what: behind the structure */
};

struct revocations {
	unsigned magic;
	atomic_uint refs;
	size_t count;
	size_t slots; /* a power of two, more than twice the count */
	struct entry **slot;
};

/* ---- entries ------------------------------------------------------------------------- */

static struct entry *entry_new(const struct revocation *r, uint64_t hash)
{
	size_t n = strlen(r->what) + 1;
	struct entry *e = xcalloc(1, sizeof *e + n);

	atomic_init(&e->refs, 1);
	e->hash = hash;
	e->r = *r;
	e->r.what = memcpy(e + 1, r->what, n);
	return e;
}

static struct entry *entry_ref(struct entry *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

static void entry_unref(struct entry *e)
{
	if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
		free(e);
}

/* ---- the table ----------------------------------------------------------------------- */

static struct revocations *table_new(size_t room)
{
	struct revocations *t = xcalloc(1, sizeof *t);

	t->magic = REVOCATIONS_MAGIC;
	atomic_init(&t->refs, 1);
	for (t->slots = 16; t->slots <= 2 * room; t->slots *= 2)
		;
	t->slot = xcalloc(t->slots, sizeof(struct entry *));
	return t;
}

struct revocations *revocations_new(void)
{
	return table_new(0);
}

struct revocations *revocations_ref(struct revocations *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void revocations_unref(struct revocations **tp)
{
	struct revocations *t = *tp;

	*tp = NULL;
	if (!t)
		return;
	CHECK_MAGIC(t, REVOCATIONS_MAGIC);
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (size_t i = 0; i < t->slots; i++)
		entry_unref(t->slot[i]);
	free(t->slot);
	t->magic = 0;
	free(t);
}

size_t revocations_count(const struct revocations *t)
{
	return t->count;
}

static uint64_t hash_of(enum revocation_kind kind, const char *what)
{
	return XXH3_64bits_withSeed(what, strlen(what), kind);
}

static size_t slot_of(const struct revocations *t, uint64_t hash, enum revocation_kind kind,
                      const char *what)
{
	size_t i = (size_t)hash & (t->slots - 1);

	for (; t->slot[i]; i = (i + 1) & (t->slots - 1)) {
		const struct entry *e = t->slot[i];

		if (e->hash == hash && e->r.kind == kind && strcmp(e->r.what, what) == 0)
			break;
	}
	return i;
}

static const struct revocation *find(const struct revocations *t, enum revocation_kind kind,
                                     const char *what)
{
	const struct entry *e = t->slot[slot_of(t, hash_of(kind, what), kind, what)];

	return e ? &e->r : NULL;
}

bool revocations_match(const struct revocations *t, const struct identity *i)
{
	const struct revocation *r;

	if (t->count == 0)
		return false;
	if (i->token_id[0] != '\0' && find(t, REVOKE_TOKEN, i->token_id))
		return true;
	r = find(t, REVOKE_SUBJECT, i->subject);
	return r && i->issued_s <= r->issued_before_s;
}

/* ---- filling ------------------------------------------------------------------------- */

static void grow(struct revocations *t)
{
	size_t old_slots = t->slots;
	struct entry **old = t->slot;

	t->slots *= 2;
	t->slot = xcalloc(t->slots, sizeof(struct entry *));
	for (size_t i = 0; i < old_slots; i++)
		if (old[i])
			t->slot[slot_of(t, old[i]->hash, old[i]->r.kind, old[i]->r.what)] = old[i];
	free(old);
}

static int64_t later_end(int64_t a, int64_t b)
{
	return a == 0 || b == 0 ? 0 : MAX(a, b);
}

static bool is_sound(const struct revocation *r)
{
	return (r->kind == REVOKE_TOKEN || r->kind == REVOKE_SUBJECT) && r->until_s >= 0 &&
	       r->what && is_plain_text(r->what, strlen(r->what), IDENTITY_SUBJECT_MAX);
}

int revocations_add(struct revocations *t, const struct revocation *r)
{
	uint64_t hash;
	struct revocation merged;
	struct entry **at;

	if (!is_sound(r))
		return -EINVAL;
	hash = hash_of(r->kind, r->what);
	at = &t->slot[slot_of(t, hash, r->kind, r->what)];
	merged = *r;
	if (*at) {
		merged.issued_before_s = MAX(r->issued_before_s, (*at)->r.issued_before_s);
		merged.until_s = later_end(r->until_s, (*at)->r.until_s);
		entry_unref(*at);
		*at = entry_new(&merged, hash);
		return 0;
	}
	if (t->count == AUTH_REVOCATIONS_MAX)
		return -ENOSPC;
	*at = entry_new(&merged, hash);
	t->count++;
	if (2 * t->count >= t->slots)
		grow(t);
	return 0;
}

/* ---- copies -------------------------------------------------------------------------- */

static void share(struct revocations *t, struct entry *e)
{
	t->slot[slot_of(t, e->hash, e->r.kind, e->r.what)] = entry_ref(e);
	t->count++;
}

struct revocations *revocations_copy(const struct revocations *t)
{
	struct revocations *c = table_new(t->count + 1);

	for (size_t i = 0; i < t->slots; i++)
		if (t->slot[i])
			share(c, t->slot[i]);
	return c;
}

struct revocations *revocations_copy_without(const struct revocations *t, enum revocation_kind kind,
                                             const char *what, bool *ret_found)
{
	struct revocations *c = table_new(t->count);

	*ret_found = false;
	for (size_t i = 0; i < t->slots; i++) {
		struct entry *e = t->slot[i];

		if (!e)
			continue;
		if (e->r.kind == kind && strcmp(e->r.what, what) == 0)
			*ret_found = true;
		else
			share(c, e);
	}
	return c;
}

struct revocations *revocations_copy_current(const struct revocations *t,
                                             const struct keytable *keys, int64_t now_s)
{
	struct revocations *c = table_new(t->count);

	for (size_t i = 0; i < t->slots; i++) {
		struct entry *e = t->slot[i];

		if (e && (e->r.until_s == 0 || now_s < e->r.until_s ||
		          keytable_needs(keys, &e->r, now_s)))
			share(c, e);
	}
	return c;
}
