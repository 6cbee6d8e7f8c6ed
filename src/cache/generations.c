#include "provost/generations.h"

#include <sodium.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "provost/delay.h"

/*
 * Why each order is what it is. Every "before" and "later" below is a real happens-before: through
 * a lock, an atomic, or the database and the sockets in between.
 *
 * V. generations_now loads with acquire: nothing that follows it, the sending of the statement
 * first of all, moves ahead of it. So a change that the statement did not see is told, and V
 * advanced for it, after the load, which coherence then keeps from returning the advanced value:
 * start < v. Advancing is a release: whoever starts at v does so after the change was told, and
 * reads it; for what started there the raise may still be on its way to the slot, rightly without
 * effect. All this is also why V is advanced before the slot is raised, never after.
 *
 * A slot. It only ever grows (compare and swap to the maximum: a plain store of a smaller v that
 * came late would revive what a larger one invalidated). A raise that returned has seen the slot at
 * v or more; coherence alone makes every later load return that much or more. Release and acquire
 * are for what lies around it: who finds a slot raised also sees what its raiser did before.
 *
 * Nothing here needs sequential consistency: no thread decides on the absence of a store by another
 * one (there is no "I put while you raise, one of us must notice": what was put too late is found
 * raised by the next lookup).
 */

enum { GENERATIONS_MAGIC = 0x67656e73, LINE = 64 };

struct generations {
	unsigned magic;
	unsigned char key[crypto_shorthash_KEYBYTES];
	/* Apart from what is read with every lookup and written never. */
	_Alignas(LINE) _Atomic uint64_t v;
	_Alignas(LINE) _Atomic uint64_t epoch;
	_Atomic uint64_t trusted_ms; /* the end of trust; read with the epoch */
	_Alignas(LINE) _Atomic uint64_t slot[GENERATIONS_SLOTS];
};

struct generations *generations_new(void)
{
	/* Zeroed, aligned, and given out page by page. */
	struct generations *g =
	    mmap(NULL, sizeof(*g), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (g == MAP_FAILED || sodium_init() < 0) {
		fputs("provost: no memory, or no randomness, for generations\n", stderr);
		exit(EXIT_FAILURE);
	}
	g->magic = GENERATIONS_MAGIC;
	crypto_shorthash_keygen(g->key);
	atomic_init(&g->trusted_ms, UINT64_MAX);
	return g;
}

void generations_free(struct generations **gp)
{
	struct generations *g = *gp;

	if (!g)
		return;
	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	*gp = NULL;
	munmap(g, sizeof(*g));
}

gen_slot generations_slot(const struct generations *g, const void *tag, size_t n)
{
	unsigned char hash[crypto_shorthash_BYTES];
	uint32_t word;

	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	crypto_shorthash(hash, tag, n, g->key);
	memcpy(&word, hash, sizeof(word));
	return word % GENERATIONS_SLOTS;
}

uint64_t generations_now(const struct generations *g)
{
	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	return atomic_load_explicit(&g->v, memory_order_acquire);
}

static void raise_to_next(struct generations *g, _Atomic uint64_t *slot)
{
	uint64_t v, was;

	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	v = atomic_fetch_add_explicit(&g->v, 1, memory_order_release) + 1;
	DELAY(DELAY_RAISE);
	if (BROKEN(RULE_MAXIMUM)) {
		atomic_store_explicit(slot, v, memory_order_release);
		return;
	}
	was = atomic_load_explicit(slot, memory_order_relaxed);
	while (was < v && !atomic_compare_exchange_weak_explicit(
	                      slot, &was, v, memory_order_release, memory_order_relaxed))
		;
}

void generations_raise(struct generations *g, gen_slot slot)
{
	raise_to_next(g, &g->slot[slot]);
}

void generations_raise_epoch(struct generations *g)
{
	raise_to_next(g, &g->epoch);
}

void generations_trust(struct generations *g, uint64_t until_ms)
{
	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	atomic_store_explicit(&g->trusted_ms, until_ms, memory_order_release);
}

bool generations_raised(const struct generations *g, const gen_slot *slot, size_t n, uint64_t start)
{
	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	/* No slot is past V: where nothing at all was raised since, none needs to be looked at. */
	if (atomic_load_explicit(&g->v, memory_order_acquire) <= start)
		return false;
	if (atomic_load_explicit(&g->epoch, memory_order_acquire) > start)
		return true;
	for (size_t i = 0; i < n; i++) {
		if (atomic_load_explicit(&g->slot[slot[i]], memory_order_acquire) > start)
			return true;
	}
	return false;
}

bool generations_fresh(const struct generations *g, const gen_slot *slot, size_t n, uint64_t start,
                       uint64_t now_ms)
{
	CHECK_MAGIC(g, GENERATIONS_MAGIC);
	/* Acquire: who finds trust renewed also finds what was raised before it was. */
	return atomic_load_explicit(&g->trusted_ms, memory_order_acquire) > now_ms &&
	       !generations_raised(g, slot, n, start);
}

uint64_t generations_raises(const struct generations *g)
{
	/* Every raise advances V by one, from zero. */
	return generations_now(g);
}
