/*
 * syncs: who waits for which token, and what may still come.
 *
 * A token is registered for the connection that is there; it is waited for while that connection
 * is, and is not overdue. All functions lock for themselves; syncs_await alone waits.
 */
#ifndef PROVOST_ENGINE_SYNCS_H
#define PROVOST_ENGINE_SYNCS_H

#include "provost/listener.h"

enum { SYNCS_MAX = 1024, SYNC_BUCKETS = 64 };

TAILQ_HEAD(sync_list, sync);

struct syncs {
	pthread_mutex_t lock;
	/* Under the lock. */
	struct sync_list bucket[SYNC_BUCKETS];
	unsigned count;
	uint64_t connection; /* whose notifications come; 0: none */
	bool overdue;
	uint64_t seen; /* of those registered */
	uint64_t late; /* waits that ended without */
};

void syncs_init(struct syncs *s);
/* Nobody may be waiting. */
void syncs_done(struct syncs *s);

/* What follows comes on that connection, another than before (0: none), or is overdue: whoever
 * waits in vain from now on is told. */
void syncs_set(struct syncs *s, uint64_t connection, bool overdue);
/* All that was sent before the token has been processed. Of another instance's nothing is known. */
void syncs_arrived(struct syncs *s, const char *token);

void syncs_stats(struct syncs *s, uint64_t *ret_seen, uint64_t *ret_late);

void syncs_expect(struct syncs *s, struct sync *x);
/* Until clock_us is past. */
bool syncs_await(struct syncs *s, struct sync *x, uint64_t until_us) _must_check_;
void syncs_forget(struct syncs *s, struct sync *x);

#endif
