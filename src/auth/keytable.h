/*
 * keytable: the API keys in force, by id, with their identities ready made. Immutable and counted.
 */
#ifndef PROVOST_AUTH_KEYTABLE_H
#define PROVOST_AUTH_KEYTABLE_H

#include "identity.h"
#include "provost/auth.h"

struct keytable;

/* Copies. NULL with `errs`: too many, or what is wrong with one. */
struct keytable *keytable_new(const struct apikey *list, size_t n, struct errors *errs);
struct keytable *keytable_ref(struct keytable *t);
void keytable_unref(struct keytable **t);

/* As auth_identify; `text` begins as keys do. */
int keytable_identify(const struct keytable *t, const char *text, size_t n, int64_t now_s,
                      struct identity **ret, const char **reason) _must_check_;
/* Whether the key is still good, and still gives its holder the same: the subject, the roles, the
 * time. */
int keytable_check(const struct keytable *t, const struct identity *i, int64_t now_s,
                   const char **reason) _must_check_;

size_t keytable_count(const struct keytable *t);
/* Whether a key that is not revoked in the table itself would be good without this revocation. */
bool keytable_needs(const struct keytable *t, const struct revocation *r, int64_t now_s);

#endif
