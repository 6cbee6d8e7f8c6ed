/*
 * job: one piece of work for a worker, and those who wait for it.
 *
 * A fill runs an endpoint's statement and stores the answer; however many requests want the same
 * key, there is one running fill of it and at most one that waits for it to end (because a tag was
 * raised after the first was begun, so its answer may not be given to those who came later). A
 * waiter is embedded in whatever wants the answer. Jobs are counted: every waiter that has been
 * answered holds a reference, and what the answer's body points into lives as long as the job.
 */
#ifndef PROVOST_JOB_H
#define PROVOST_JOB_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "provost/answer.h"
#include "provost/cache.h"
#include "provost/catalog.h"

struct job;

struct waiter {
	/* Set by whoever waits. Called once for every accepted waiter, on a worker's or the
	 * janitor's thread, with no lock held. */
	void (*done)(struct waiter *);
	uint64_t ticket; /* no other waiter has it; for engine_abandon */
	/* Set before done; the reference is the waiter's to give back with job_unref. */
	struct job *job;
	bool left;      /* it was abandoned: there is no answer, and no job */
	bool collapsed; /* the job was begun for another */
	bool stale;     /* and before a change that the waiter came after: max_stale allowed it */
	/* The engine's, under its lock. */
	TAILQ_ENTRY(waiter) link;
};

TAILQ_HEAD(waiters, waiter);
TAILQ_HEAD(jobs, job);

enum job_state {
	JOB_WAITING, /* in a lane */
	JOB_RUNNING, /* a worker has it */
	JOB_ENDED,
};

enum job_lane {
	LANE_REQUESTS,
	LANE_BACKGROUND,
	LANE_PARKED,            /* behind running fills of the same keys: not for a worker yet */
	LANE_PARKED_BACKGROUND, /* likewise, and for the background then */
	LANE_COUNT,
};

enum job_kind {
	JOB_FILL,
	JOB_WRITE,  /* an endpoint that changes something; one waiter, who stays */
	JOB_BATCH,  /* several fills whose statements are one round trip; nobody waits for it */
	JOB_ENCODE, /* makes a variant of an entry's body */
	JOB_CALL,   /* what Provost itself does in the database; one waiter, who stays */
};

/* What every generation is older than: nothing can have been raised since. */
#define JOB_NOT_SENT UINT64_MAX

struct job {
	atomic_uint refs;
	enum job_kind kind;

	/* JOB_FILL, JOB_WRITE. Constant. */
	struct catalog *catalog; /* a reference, which keeps the endpoint */
	const struct endpoint *endpoint;
	struct cache_key key;      /* its bytes follow the structure */
	const char *const *values; /* one per bind of the statement, within the key */
	const char *request_id;    /* of the request it was begun for; for the log */
	/* JOB_FILL. */
	/* Of its tags: the worker's, constant once `start` says that the statement was sent. */
	gen_slot slot[CACHE_SLOTS_MAX];
	size_t slots;
	/* generations_now and clock_ms just before the statement was sent last, by the worker, who
	 * stores `start` second and releases what stands above; JOB_NOT_SENT before. */
	_Atomic uint64_t start, started_ms;

	struct call *call; /* JOB_CALL; the waiter's, who outlives it */

	/* A reference. JOB_ENCODE: constant. JOB_FILL: the worker's: where the answer is the
	 * cache's after all. */
	struct entry *entry;
	/* JOB_ENCODE. Constant. */
	enum entry_coding coding;

	/* The worker's until the job has ended, constant after. */
	struct answer answer;
	bool stored; /* in the cache, for who comes later */
	unsigned
	    senders; /* answers that are being sent from it: the http module's, under its lock */

	/* Under the engine's lock. */
	enum job_state state;
	enum job_lane lane;  /* while it waits */
	bool background;     /* goes on without waiters */
	bool cancelled;      /* its last waiter has left: nobody is to join it any more */
	bool listed;         /* among the fills that can be found by their key */
	struct job *next;    /* parked behind this one */
	struct job *before;  /* parked: the one it is behind */
	struct job *batch;   /* that it is a member of, until it ends; its place is there */
	struct jobs members; /* JOB_BATCH */
	unsigned size;       /* likewise: their number */
	uint64_t submitted_us;
	struct waiters waiters;
	TAILQ_ENTRY(job) link;     /* of its lane, or its batch */
	LIST_ENTRY(job) same_hash; /* of the fills with the same place in the table */
};

void job_ref(struct job *j);
void job_unref(struct job **j);

#endif
