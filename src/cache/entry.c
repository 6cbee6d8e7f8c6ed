#include "entry.h"

#include <malloc.h>
#include <string.h>

enum { BLOCK_HEADER = 8 };

int64_t allocated(void *block)
{
	return block ? (int64_t)malloc_usable_size(block) + BLOCK_HEADER : 0;
}

struct entry *entry_new(const struct entry_parts *p)
{
	size_t slots_len = p->slots * sizeof(gen_slot);
	size_t n = offsetof(struct entry, tail) + slots_len + p->key.len;
	unsigned char *at;
	struct entry *e;

	ALWAYS(p->slots <= CACHE_SLOTS_MAX && p->key.len <= CACHE_KEY_MAX);
	ALWAYS(p->kind == ENTRY_BODY || p->body_len == 0);
	if (p->body_len > UINT32_MAX)
		return NULL;
	n = MAX(n + p->body_len, sizeof(*e));
	e = malloc(n);
	if (!e)
		return NULL;
	memset(e, 0, sizeof(*e));
	e->magic = ENTRY_MAGIC;
	atomic_init(&e->refs, 1);
	e->hash = p->key.hash;
	e->start = p->start;
	e->started_ms = p->started_ms;
	e->key_len = (uint32_t)p->key.len;
	e->slots = (uint16_t)p->slots;
	e->shave = (uint16_t)jitter(UINT16_MAX + 1);
	e->kind = (uint8_t)p->kind;
	e->body_len = (uint32_t)p->body_len;
	memcpy(e->etag, p->etag, sizeof(e->etag));

	at = (unsigned char *)e->tail;
	if (slots_len)
		memcpy(at, p->slot, slots_len);
	at += slots_len;
	if (p->key.len)
		memcpy(at, p->key.bytes, p->key.len);
	at += p->key.len;
	if (p->body_len)
		memcpy(at, p->body, p->body_len);
	return e;
}

void entry_ref(struct entry *e)
{
	unsigned before;

	CHECK_MAGIC(e, ENTRY_MAGIC);
	/* Relaxed: whoever raises it holds a reference, or the lock under which the cache's own is
	 * given up. */
	before = atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	ALWAYS(before > 0);
}

void entry_unref(struct entry **ep)
{
	struct entry *e = *ep;
	unsigned before;

	if (!e)
		return;
	CHECK_MAGIC(e, ENTRY_MAGIC);
	*ep = NULL;
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	before = atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel);
	ALWAYS(before > 0);
	if (before > 1)
		return;
	ALWAYS(!(e->flags & FLAG_LINKED));
	for (size_t i = 0; i < CODING_COUNT; i++)
		free(atomic_load_explicit(&e->variant[i], memory_order_relaxed));
	e->magic = 0;
	free(e);
}

enum entry_kind entry_kind(const struct entry *e)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	return e->kind;
}

const void *entry_body(const struct entry *e, size_t *ret_len)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	*ret_len = e->body_len;
	return entry_key(e) + e->key_len;
}

const unsigned char *entry_etag(const struct entry *e)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	return e->etag;
}

const gen_slot *entry_slots(const struct entry *e, size_t *ret_slots)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	*ret_slots = e->slots;
	return e->tail;
}

uint64_t entry_start(const struct entry *e)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	return e->start;
}

uint64_t entry_started_ms(const struct entry *e)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	return e->started_ms;
}

const void *entry_variant(const struct entry *e, enum entry_coding coding, size_t *ret_len)
{
	const struct variant *v;

	CHECK_MAGIC(e, ENTRY_MAGIC);
	/* Acquire, for cache_attach's release: its bytes are there when the pointer is. */
	v = atomic_load_explicit(&e->variant[coding], memory_order_acquire);
	if (!v)
		return NULL;
	*ret_len = v->len;
	return v->bytes;
}

unsigned *entry_senders(struct entry *e)
{
	CHECK_MAGIC(e, ENTRY_MAGIC);
	return &e->senders;
}

int64_t entry_charge(const struct entry *e)
{
	/* Not written through: malloc_usable_size only lacks the const. */
	int64_t n = allocated((void *)(uintptr_t)e);

	for (size_t i = 0; i < CODING_COUNT; i++)
		n += allocated(atomic_load_explicit(&e->variant[i], memory_order_relaxed));
	return n;
}

struct variant *variant_new(const void *bytes, size_t len)
{
	struct variant *v = len <= SIZE_MAX / 2 ? malloc(sizeof(*v) + len) : NULL;

	if (!v)
		return NULL;
	v->len = len;
	memcpy(v->bytes, bytes, len);
	return v;
}

void entry_done(void *e)
{
	struct entry *entry = e;

	entry_unref(&entry);
}
