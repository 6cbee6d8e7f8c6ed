/*
 * revocations: what is revoked, by id and by subject. Immutable and counted: a change is a copy,
 * which shares the entries.
 */
#ifndef PROVOST_AUTH_REVOCATIONS_H
#define PROVOST_AUTH_REVOCATIONS_H

#include "keytable.h"

struct revocations;

struct revocations *revocations_new(void);
struct revocations *revocations_ref(struct revocations *t);
void revocations_unref(struct revocations **t);
size_t revocations_count(const struct revocations *t);

bool revocations_match(const struct revocations *t, const struct identity *i);

/* Only before others see it. -EINVAL, -ENOSPC. */
int revocations_add(struct revocations *t, const struct revocation *r) _must_check_;

/* Copies with a difference. */
struct revocations *revocations_copy(const struct revocations *t);
struct revocations *revocations_copy_without(const struct revocations *t, enum revocation_kind kind,
                                             const char *what, bool *ret_found);
/* Without those that `now_s` has passed and that no API key needs. */
struct revocations *revocations_copy_current(const struct revocations *t,
                                             const struct keytable *keys, int64_t now_s);

#endif
