/*
 * settings: the options with all their files read and checked. Immutable and counted.
 */
#ifndef PROVOST_AUTH_SETTINGS_H
#define PROVOST_AUTH_SETTINGS_H

#include "claims.h"
#include "keyset.h"
#include "watch.h"

struct settings {
	unsigned magic;
	atomic_uint refs;
	uint64_t generation; /* of these settings */
	enum auth_mode mode;
	struct identity *anonymous; /* AUTH_NONE */
	bool jwt;                   /* JWTs are accepted */
	struct keyset keys;
	struct claim_rules jwt_rules, cookie_rules;
	struct secret *nextauth[AUTH_SECRETS_MAX]; /* keys, not the secrets they come from */
	size_t nextauth_keys;
	struct auth_options options; /* a copy: what the rules point to */
};

/* Reads the files, each noted in `watch`. NULL, with everything that is wrong in `errs`. */
struct settings *settings_new(const struct auth_options *o, uint64_t generation,
                              struct watch *watch, struct errors *errs, struct errors *notes);
/* What holds before anything is configured: nobody is accepted. */
struct settings *settings_new_closed(uint64_t generation);
struct settings *settings_ref(struct settings *s);
void settings_unref(struct settings **s);

/* A deep copy; secrets are shared. */
void auth_options_copy(struct auth_options *to, const struct auth_options *from);

#endif
