/*
 * What listener.c (who asks) and stream.c (the thread) share and nobody else sees.
 */
#ifndef PROVOST_ENGINE_LISTENER_IMPL_H
#define PROVOST_ENGINE_LISTENER_IMPL_H

#include <stdatomic.h>

#include "apply.h"
#include "provost/conn.h"
#include "provost/listener.h"
#include "syncs.h"

enum { STREAM_LAGS = 100 }; /* heartbeats that the greatest lag is of */

enum phase {
	PHASE_AWAY,       /* no connection; the next attempt at `attempt_us` */
	PHASE_CONNECTING, /* since `since_us` */
	PHASE_LISTENING,  /* LISTEN was sent at `since_us` */
	PHASE_FOLLOWING,  /* it has committed */
};

/* The thread's own. */
struct stream {
	struct notify_sink notify; /* of conn_receive */
	struct conn *conn;
	enum phase phase;
	uint64_t since_us, attempt_us;
	unsigned attempts;    /* in vain, since the stream was live */
	uint64_t connections; /* begun; also the number of this one */
	/* The heartbeat that was sent last. */
	char token[CHANGE_TOKEN_LEN + 1]; /* this connection's */
	uint64_t number;
	uint64_t sent_us;
	uint64_t interval_us; /* as it was when this was sent */
	bool out;             /* not back yet */
	bool pooled;          /* it came from another session than it was sent on */

	bool gap;         /* the stream was lost, and nobody was told so far */
	uint64_t live_us; /* when it was live last, or the thread began */
	uint64_t lag_us[STREAM_LAGS];
	uint64_t lags;
	uint64_t complained_us, unreadable_us, overdue_us; /* of these lines in the log */
	struct narrowings narrowings;
	struct listener_stats stats; /* published at the end of each turn */
};

struct listener {
	unsigned magic;
#define LISTENER_MAGIC 0x11573ee5u
	char *url;
	struct generations *generations;
	struct snapshot *catalog;
	struct listener_sink sink;
	int wake; /* eventfd: settings have changed, or it is to stop */
	pthread_t thread;
	bool started;
	struct syncs syncs;
	/* Relaxed: a guess about the database, which guards nothing. */
	_Atomic uint64_t down_us;
	_Atomic uint64_t lease_us; /* when trust ends; 0: there is none */
	struct stream stream;

	pthread_mutex_t lock;
	/* Under the lock. */
	int64_t heartbeat_ms, sync_timeout_ms;
	bool stopping;
	struct listener_stats stats;
};

/* The thread. */
void *stream_run(void *listener);

#endif
