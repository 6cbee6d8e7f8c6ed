/*
 * callers: who may call, kept up to date while the server runs: the settings of [auth], the files
 * that they name, and API keys and revocations from the database.
 *
 * Main's own; nothing here is called by another thread, and all of it may wait: for files, and for
 * the database for some seconds, which a signal to stop cuts short.
 */
#ifndef PROVOST_CALLERS_H
#define PROVOST_CALLERS_H

#include "provost/base.h"

struct auth;
struct config;
struct errors;
struct identities;

struct callers {
	struct auth *auth;
	struct identities *identities; /* NULL: mode = none */
	int failed;      /* why the last look into the database was in vain; 0: it was not */
	uint64_t due_ms; /* the next look */
	uint64_t earliest_ms;
	unsigned looks;
};

/* Says of each in the log that it works, but should not stay so. */
void callers_warn(const struct errors *notes);

/* Takes `auth` over. What waits returns once `interrupt` is readable. */
void callers_init(struct callers *c, struct auth *auth, const struct config *config, int interrupt);
/* Nobody may ask who is calling any more. */
void callers_done(struct callers *c);

/* Puts the settings of a configuration in force, or leaves all as it is: -EINVAL. */
int callers_configure(struct callers *c, const struct config *config,
                      struct errors *errs) _must_check_;

/* Looks at files and database, and sets when to look again. 0 or more: keys and revocations are
 * known; else as identities_load. */
int callers_look(struct callers *c);
/* Keys or revocations may have changed: the next look is due as soon as it may. */
void callers_hasten(struct callers *c);
/* How long until the next look is due. */
int64_t callers_due_in_ms(const struct callers *c);

#endif
