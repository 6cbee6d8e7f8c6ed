/*
 * courier: between provost.publish and the hub, one thread with a connection of its own.
 *
 * What the listener hears is checked here (its digest; any role may NOTIFY) and goes on to the hub,
 * in the order in which it was committed: at once, or behind what has to be fetched from
 * provost.outbox because it was too large for a notification. What is kept for a user is loaded
 * when the hub asks for it, and deleted when it was acknowledged. What nobody acknowledges is
 * purged.
 *
 * It connects when there is something to do. While the database is away what was published waits,
 * up to a bound; past it everybody is told to resync, which has what is kept for users loaded.
 * Loads wait, too; acknowledgements are answered that they failed.
 *
 * No function blocks but courier_stop. No lock is held while the hub or the database is called.
 */
#ifndef PROVOST_COURIER_H
#define PROVOST_COURIER_H

#include "provost/base.h"

struct change;
struct courier;
struct hub;

struct courier_options {
	char *url;
	int64_t outbox_age_ms; /* how long what is not acknowledged is kept: 7 days */
};

enum {
	COURIER_EVENTS_MAX = 4096, /* that wait behind what is fetched, or for the key, */
	COURIER_EVENT_BYTES = 16 << 20,
	COURIER_LOADS_MAX = 65536,
	COURIER_ACKS_MAX = 4096,
	COURIER_ACK_MS = 3000, /* after which one that could not be committed has failed */
	COURIER_IDS_MAX = 256, /* in an acknowledgement */
	COURIER_PAGE_ROWS = 1000,
	COURIER_PAGE_BYTES = 256 << 10, /* of a user's rows that are loaded at a time */
};

/* Copies the options; borrows the hub, whose keeper it becomes: before hub_start. Exits when out of
 * memory. */
struct courier *courier_new(const struct courier_options *o, struct hub *hub);
/* Negative errno. */
int courier_start(struct courier *c) _must_check_;
/* Applies everything but the URL. */
void courier_configure(struct courier *c, const struct courier_options *o);
/* After hub_stop and listener_stop. */
void courier_stop(struct courier *c);
void courier_free(struct courier **c);

/* Of kind CHANGE_EVENT. The listener's thread. */
void courier_event(struct courier *c, const struct change *change);

struct courier_stats {
	uint64_t events, references; /* that were genuine; of them fetched */
	uint64_t forged;             /* whose digest was not right, or could not be checked */
	uint64_t lost;        /* that there was no room for, or that were not there any more */
	uint64_t waiting;     /* to be handed to the hub, now */
	uint64_t loads, rows; /* users; what was kept for them */
	uint64_t acknowledged, failed_acks;
	uint64_t purged;
	uint64_t kept; /* rows for users, when it was purged last */
	bool connected;
};
void courier_stats(struct courier *c, struct courier_stats *ret);

#endif
