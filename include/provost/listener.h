/*
 * listener: the thread that hears of changes in the database and makes what was stored old.
 *
 * One connection of its own, direct (never through a transaction pooler), in LISTEN on the channel
 * `provost` (change.h). Each change raises the generations of its table and rows; the epoch is
 * raised whenever the stream may have had a gap, and for what cannot be read. A heartbeat to itself
 * every `heartbeat_ms` measures the lag; while one is overdue (not back after twice that), or the
 * connection is lost, nothing is fresh (generations_trust), and reads go to the database.
 *
 * That what comes is complete is known of a session of our own only: behind a pooler notifications
 * are lost without a word. A heartbeat that comes back from another session than it was sent on
 * gives it away, and the stream is refused.
 *
 * Writes wait for the stream: listener_expect before the transaction's token is sent,
 * listener_await after its COMMIT. Any thread may call these; listener_await blocks, and is for
 * workers only.
 *
 * Bounds: SYNCS_MAX tokens are waited for at a time; what waits, waits at most `sync_timeout_ms`;
 * connecting is tried again with full jitter, from 50 ms up to a second.
 */
#ifndef PROVOST_LISTENER_H
#define PROVOST_LISTENER_H

#include <pthread.h>
#include <sys/queue.h>

#include "provost/change.h"

struct generations;
struct listener;
struct snapshot;

struct listener_options {
	char *url;               /* [database] listen_url, else url; needs a restart */
	int64_t heartbeat_ms;    /* 300 */
	int64_t sync_timeout_ms; /* 2000 */
};

/* Whoever wants to know as well; called on the listener's thread, with no lock held, and must not
 * block. Each may be NULL. */
struct listener_sink {
	/* A change of a table, after its generations were raised. */
	void (*change)(void *arg, const struct change *c);
	/* All of what has come at once (a transaction's changes do, unless they are many) has been
	 * taken, and something was raised. */
	void (*raised)(void *arg);
	/* Something that claims to be published. */
	void (*event)(void *arg, const struct change *c);
	/* Changes may have been missed: once per gap, after the epoch was raised. */
	void (*gap)(void *arg);
	/* The stream is there for the first time: what was committed before was not told. */
	void (*began)(void *arg);
	/* API keys or revocations have changed, or may have, before the stream was there. */
	void (*identities)(void *arg);
	/* Triggers may have changed: `epoch` was sent, or may have been, before the stream was
	 * there. */
	void (*triggers)(void *arg);
	void *arg;
};

/* Copies the options and the sink; borrows the rest. `catalog` (of struct catalog) says which
 * columns endpoints are narrowed by: a change that lacks one of them is a change of unknown rows.
 * Exits when out of memory. */
struct listener *listener_new(const struct listener_options *o, struct generations *g,
                              struct snapshot *catalog, const struct listener_sink *sink);
/* Nothing is fresh from here on until the stream is live. Negative errno. */
int listener_start(struct listener *l) _must_check_;
/* Applies everything but the URL. */
void listener_configure(struct listener *l, const struct listener_options *o);
/* Wakes and ends the thread; whoever waits for a token is told that it did not come. */
void listener_stop(struct listener *l);
void listener_free(struct listener **l);

/* ---- reading one's writes ------------------------------------------------------------ */

/* A write's place in the stream. Owned by the writer's stack; the listener's while registered. */
struct sync {
	char payload[sizeof "sync " + CHANGE_TOKEN_LEN]; /* to be sent on the channel */
	/* The listener's, under its lock. */
	uint64_t connection; /* that it was registered with; 0: not registered */
	bool seen;
	pthread_cond_t news;
	TAILQ_ENTRY(sync) link;
};

/* Registers a random token, unless there is no connection, or SYNCS_MAX are registered. Always
 * followed by listener_await or listener_forget. */
void listener_expect(struct listener *l, struct sync *s);
/* Waits until the token, and so all that was committed before it, has been processed. True: it has.
 * False: it may have been missed, because the connection is another than at listener_expect, or is
 * lost, or the heartbeat is overdue, or sync_timeout or the deadline has passed: the epoch is the
 * caller's to raise. */
bool listener_await(struct listener *l, struct sync *s, uint64_t deadline_us) _must_check_;
void listener_forget(struct listener *l, struct sync *s);

/* ---- looking ------------------------------------------------------------------------- */

enum listener_state {
	LISTENER_CONNECTING, /* nothing is fresh */
	LISTENER_LIVE,
	LISTENER_OVERDUE, /* connected, but its heartbeat is not back: nothing is fresh */
	LISTENER_STOPPED,
};
const char *listener_state_name(enum listener_state s); /* "connecting", "live", … */

struct listener_stats {
	enum listener_state state;
	uint64_t down_us;    /* since when (clock_us) the database seems to be away, because a
	                        heartbeat is overdue, or there was no connection for a second; 0: it
	                        does not */
	uint64_t lag_us;     /* of the last heartbeat that came back */
	uint64_t lag_max_us; /* of the last 100 */
	uint64_t changes, syncs, epochs, unreadable;
	uint64_t gaps;       /* times the stream was lost */
	uint64_t late_syncs; /* awaits that ended without the token */
};
void listener_stats(struct listener *l, struct listener_stats *ret);
/* stats.down_us, on the spot, for whoever finds that nothing is fresh: two relaxed loads. It may be
 * the connection's fault alone: who has had an answer from the database since knows better. */
uint64_t listener_down_us(const struct listener *l);

#endif
