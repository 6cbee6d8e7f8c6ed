/*
 * identities: API keys and revocations, from the database's schema `provost` into memory.
 *
 * identities_load asks, on a connection of its own, whether the tables have changed, and reads them
 * if so; main calls it every few seconds. While the database is away, what is in memory stays in
 * force. A row that cannot be one (the owner may write what he likes) is left out and complained
 * of; it does not keep the others from changing.
 *
 * identities_load and identities_purge: one thread, which they may block for IDENTITIES_WAIT_MS.
 * identities_revoke and identities_unrevoke: any thread that may wait for the database; `c` is
 * theirs for the time of the call, borrowed from the pool, say. No lock is held while the database
 * is waited for.
 */
#ifndef PROVOST_IDENTITIES_H
#define PROVOST_IDENTITIES_H

#include "provost/auth.h"
#include "provost/errors.h"

struct conn;
struct identities;

enum {
	IDENTITIES_WAIT_MS = 2000,
	IDENTITIES_PURGE_MARGIN_S = 3600, /* clocks differ, and tokens have a leeway */
};

/* Copies the URL; borrows the rest. What waits returns once `interrupt` (-1: none) is readable. */
struct identities *identities_new(struct auth *auth, const char *url, bool prepare, int interrupt);
void identities_free(struct identities **i);

/* 1: there was something new, and it is in force; 0: there was not. Else nothing changed:
 *   -ENOTCONN   the database cannot be reached, or did not answer in time,
 *   -ENOENT     the schema is not there: `provost schema install`,
 *   -EACCES     this role may not read it: `provost grants print`,
 *   -EINVAL     the database refused for another reason, or there are more than can be held,
 *   -ECANCELED  interrupted.
 * `errs` gets why, and for 1 the rows that were left out. */
int identities_load(struct identities *i, struct errors *errs) _must_check_;

/* Drops revocations whose time has passed, here and in the database. Fails as identities_load. */
int identities_purge(struct identities *i, int64_t now_s, struct errors *errs) _must_check_;

/* The revocation is durable in the database, then in force here: 0. Else neither, but for a
 * connection that was lost at the wrong moment, after which the next load tells: -EINVAL     not a
 * revocation, -ENOSPC     there are AUTH_REVOCATIONS_MAX, -ENOENT, -EACCES  as identities_load,
 *   -EIO        the database refused for another reason,
 * or as conn_run. `by`: who does it, for the record. */
int identities_revoke(struct identities *i, struct conn *c, const struct revocation *r,
                      const char *by, uint64_t deadline_us) _must_check_;
/* -ENOENT: there is none. Else as identities_revoke. */
int identities_unrevoke(struct identities *i, struct conn *c, enum revocation_kind kind,
                        const char *what, uint64_t deadline_us) _must_check_;

/* For a check before the start: whether a server with this URL could read its keys. 0; or as
 * identities_load, with a sentence in `errs`. */
int identities_check(const char *url, bool prepare, uint64_t deadline_us,
                     struct errors *errs) _must_check_;

#endif
