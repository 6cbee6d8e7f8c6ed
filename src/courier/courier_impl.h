/*
 * What the files of the courier share.
 *
 * courier.c  life, the thread: connecting, whose turn it is, purging
 * parcels.c  what was published: from the listener, through the check of its digest, to the hub
 * orders.c   what the hub asks: loads and acknowledgements
 * outbox.c   statements
 * event.c    the text of what was published
 */
#ifndef PROVOST_COURIER_IMPL_H
#define PROVOST_COURIER_IMPL_H

#include <pthread.h>
#include <sys/queue.h>

#include "event.h"
#include "provost/courier.h"
#include "provost/hub.h"

struct conn;
struct pg_result;

/* Something that was published, on its way to the hub. */
struct parcel {
	STAILQ_ENTRY(parcel) link;
	struct event event;
	bool checked; /* else `event` is empty: there was no key */
	char *text;   /* as it came */
	char digest[CHANGE_DIGEST_LEN + 1];
	size_t size;
	char *fetched; /* the data, where it was too large */
	size_t fetched_len;
};
STAILQ_HEAD(parcels, parcel);

struct load {
	STAILQ_ENTRY(load) link;
	int64_t after;
	uint64_t number;
	char subject[];
};
STAILQ_HEAD(loads, load);

struct ack {
	STAILQ_ENTRY(ack) link;
	struct hub_ack ack; /* its texts and ids lie behind */
	uint64_t until_us;
};
STAILQ_HEAD(acks, ack);

enum key_state { KEY_UNREAD, KEY_THERE, KEY_ABSENT };

struct courier {
	unsigned magic;
#define COURIER_MAGIC 0xC0421E45u
	char *url;
	struct hub *hub;
	int stop_fd; /* eventfd: readable once it is to stop */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t news;
	bool stopping;
	int64_t outbox_age_ms;
	struct parcels parcels;
	size_t parcel_count, parcel_bytes;
	bool delivering; /* some are in the thread's hands: what comes goes behind them */
	struct loads loads;
	size_t load_count;
	struct acks acks;
	size_t ack_count;
	enum key_state key_state;
	unsigned char key[EVENT_KEY_LEN];
	uint64_t key_read_us;
	bool key_wanted; /* to be read (anew), but not before KEY_EVERY_US have passed */
	struct courier_stats stats;

	/* The thread's. */
	struct conn *conn;
	unsigned attempts, connections;
	uint64_t attempt_us, purged_us, complained_us;
	/* The listener's. */
	uint64_t forged_us; /* of the last line about them in the log */
};

#define COURIER_COUNT(c, what, n)                                                                  \
	do {                                                                                       \
		pthread_mutex_lock(&(c)->lock);                                                    \
		(c)->stats.what += (n);                                                            \
		pthread_mutex_unlock(&(c)->lock);                                                  \
	} while (0)

/* ---- orders.c, parcels.c: 0, or as outbox.c ------------------------------------------ */

/* A hub_keeper's. */
int orders_load(void *courier, const char *subject, int64_t after, uint64_t number);
int orders_ack(void *courier, const struct hub_ack *ack);
int orders_serve_acks(struct courier *c) _must_check_;
int orders_serve_loads(struct courier *c) _must_check_;
/* Answers those whose time is over. */
void orders_expire(struct courier *c, uint64_t now_us);
void orders_done(struct courier *c);

/* When the key is to be read; UINT64_MAX: it is not. */
uint64_t parcels_key_due_us_locked(const struct courier *c);
int parcels_serve_key(struct courier *c) _must_check_;
int parcels_serve(struct courier *c) _must_check_;
void parcels_drop(struct parcels *parcels);

/* ---- outbox.c ------------------------------------------------------------------------ */

/* Of all of them: 0; -ENOENT: the schema is an earlier one; -EACCES; or a negative errno after
 * which the connection is of no more use. */

/* So that it is known among the server's sessions. */
int outbox_name_session(struct courier *c) _must_check_;
int outbox_read_key(struct courier *c, unsigned char key[EVENT_KEY_LEN]) _must_check_;
/* The data of those that are by reference; what is not there any more stays without. */
int outbox_fetch(struct courier *c, const struct parcels *parcels) _must_check_;
/* Tells the hub what is kept for each; frees the loads that were answered. */
int outbox_load(struct courier *c, struct loads *loads) _must_check_;
/* Deletes what was acknowledged: it is committed. */
int outbox_acknowledge(struct courier *c, const struct acks *acks,
                       uint64_t *ret_deleted) _must_check_;
/* One batch of each kind. `*ret_more`: there may be more. */
int outbox_purge(struct courier *c, int64_t age_ms, uint64_t *ret_purged,
                 bool *ret_more) _must_check_;
/* How many rows are kept for users; counts no further than a bound. */
int outbox_count(struct courier *c, uint64_t *ret) _must_check_;

#endif
