/*
 * generations: tells whether what was read at some moment may still be used.
 *
 * A clock V and a fixed array of slots, indexed by a keyed hash of a tag. Raising a tag advances V
 * and raises the tag's slot to that value; what was begun at `start` (V just before its statement
 * was sent) is fresh for as long as none of its slots is past `start`. Two tags that share a slot
 * invalidate too much, never too little. One more slot, the epoch, is carried by everything. And
 * nothing is fresh while it is not certain that changes are told: trust has an end, which whoever
 * tells of changes keeps putting off.
 *
 * All functions may be called from any thread; none blocks, locks or allocates but
 * generations_new. Memory is constant: GENERATIONS_SLOTS slots of eight bytes, 8 MiB, of which the
 * system gives out what has been raised. So many, because what each raise makes old by chance is
 * the tags that are carried divided by the slots: with ten thousand courses of seven tags, the
 * fourteenth part of an entry.
 */
#ifndef PROVOST_GENERATIONS_H
#define PROVOST_GENERATIONS_H

#include "provost/base.h"

struct generations;

/* A tag's place in the array. */
typedef uint32_t gen_slot;
enum { GENERATIONS_SLOTS = 1 << 20 }; /* a power of two */

/* The key of the hash is random. Exits when out of memory. */
struct generations *generations_new(void);
void generations_free(struct generations **g);

gen_slot generations_slot(const struct generations *g, const void *tag, size_t n);

/* V as it is: to be noted before what it stands for is read. */
uint64_t generations_now(const struct generations *g);

/* From when this returns on, nothing begun before the call is fresh that carries the tag. */
void generations_raise(struct generations *g, gen_slot slot);
/* The same for everything. */
void generations_raise_epoch(struct generations *g);

/* Until when (clock_ms) it is known that every change has been told: from then on nothing is fresh,
 * whatever the slots say. UINT64_MAX at first. A time in the past: not any more. One caller at a
 * time: the listener. */
void generations_trust(struct generations *g, uint64_t until_ms);

/* Whether changes are told at `now_ms`, and neither the epoch nor any of the slots was raised past
 * `start`. */
bool generations_fresh(const struct generations *g, const gen_slot *slot, size_t n, uint64_t start,
                       uint64_t now_ms);
/* The latter alone, the other way round: what was not raised may be fresh again once changes are
 * told. */
bool generations_raised(const struct generations *g, const gen_slot *slot, size_t n,
                        uint64_t start);

/* Raises so far, the epoch's included. */
uint64_t generations_raises(const struct generations *g);

#endif
