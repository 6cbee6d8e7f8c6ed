/*
 * auth_impl: what the files of src/auth share of a struct auth.
 */
#ifndef PROVOST_AUTH_IMPL_H
#define PROVOST_AUTH_IMPL_H

#include <pthread.h>

#include "idcache.h"
#include "provost/snapshot.h"
#include "revocations.h"
#include "settings.h"

enum { AUTH_MAGIC = 0x41555448 };

/* All that decides, in one piece: whoever has it sees settings, keys and revocations of one moment.
 */
struct auth_state {
	struct snapshot_object object;
	uint64_t generation; /* never 0; a new one for each change of anything */
	struct settings *settings;
	struct keytable *keys;
	struct revocations *revocations;
};

struct auth {
	unsigned magic;
	struct snapshot *snapshot;
	struct idcache *cache;

	pthread_mutex_t lock; /* of those who change: one at a time; guards what follows */
	uint64_t generation;
	struct auth_state *state; /* the published one: the snapshot's reference */
	struct auth_options options;
	struct watch watch; /* what was read last, be it accepted or not */
};

/* Valid until this thread's next call. */
static inline const struct auth_state *auth_state(struct auth *a)
{
	return (const struct auth_state *)snapshot_use(a->snapshot);
}

/* Verifies the field that decides, without what a connection remembers. As auth_identify. */
int auth_identify_with(struct auth *a, const struct auth_state *st, const struct credentials *c,
                       int64_t now_s, struct identity **ret, const char **reason) _must_check_;

#endif
