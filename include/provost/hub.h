/*
 * hub: every WebSocket of the server, on one thread: rooms, fan-out, limits, sessions.
 *
 * One epoll loop owns all sockets and everything about them; nothing of it is touched elsewhere.
 * Other threads leave things in a bounded mailbox, which is detached whole; none of the functions
 * below waits for the hub but hub_stop. What is published while nobody is there costs nothing.
 *
 * A message is framed once and shared by all who are sent it. Each client has a bounded queue of
 * references, so the order across rooms is that of publishing. Events are sent at once while the
 * hub is idle, and gathered by the tick under load; a send carries all that a client has not seen.
 * A client that falls behind the bound loses its queue of events and gets one `resync`; replies are
 * never dropped, a flood of them closes; one that takes nothing for the stall timeout is closed.
 * So no client's behaviour costs another more than its turn: of a bounded number of bytes.
 *
 * Memory: about 1 KB per idle client; `backlog` bytes of references for one that is behind, and the
 * messages themselves once, however many wait for them.
 *
 * What is at a path (live endpoints) is read once for all who watch it, by `live`, and read anew
 * when something of it has changed. Bodies do not count towards a client's backlog, and are not
 * dropped: who falls behind is sent the latest of each path when there is room.
 *
 * The hub knows auth, to look whether identities still hold, and no HTTP.
 */
#ifndef PROVOST_HUB_H
#define PROVOST_HUB_H

#include "provost/identity.h"
#include "provost/strlist.h"

struct auth;
struct hub;
struct live;

enum hub_user_policy { HUB_REPLACE, HUB_REJECT };

/* A room without a colon in its name, and who may join it. */
struct hub_room {
	char *name;
	struct strlist roles;
};

struct hub_options {
	unsigned max_clients;
	unsigned max_per_user;    /* 0: no bound; API keys are exempt */
	unsigned max_per_address; /* 0: no bound */
	enum hub_user_policy per_user_policy;
	int64_t tick_ms;
	int64_t backlog;     /* bytes */
	int64_t max_message; /* bytes, of a client's */
	int64_t stall_timeout_ms, ping_interval_ms, auth_timeout_ms, resume_window_ms;
	int64_t refresh_interval_ms; /* between two refreshes of a path */
	struct hub_room *room;
	size_t rooms;
};

enum {
	HUB_ROOM_MAX = 512,     /* bytes of a room's name */
	HUB_ROOM_WORD_MAX = 64, /* of one without a colon */
	HUB_ROOMS_PER_CLIENT = 256,
	HUB_PATHS_PER_CLIENT = 256,
	HUB_PATHS_MAX = 50000,     /* watched by all; a path whose answers differ counts for each */
	HUB_BODIES_MAX = 64 << 20, /* bytes of what is at them */
	HUB_BODIES_PER_USER = 16 << 20,     /* and for one user */
	HUB_ECHO_MAX = 16 << 20,            /* bytes of a message that is echoed */
	HUB_UNIDENTIFIED_MESSAGE = 4 << 10, /* bytes of one before its sender is known */
};

/* Whether a name may stand in [rooms]: 1 to HUB_ROOM_WORD_MAX of A-Z a-z 0-9 _ . - */
bool hub_room_is_word(const char *s, size_t n);

/* ---- life ---------------------------------------------------------------------------- */

/* Copies the options; borrows the rest. `live` NULL: no path can be watched. Exits when out of
 * memory. */
struct hub *hub_new(const struct hub_options *o, struct auth *auth, struct live *live);
/* Negative errno. A hub that runs is left alone. */
int hub_start(struct hub *h) _must_check_;
/* Applies everything, to clients that are there as well. Not beside hub_stop. */
void hub_configure(struct hub *h, const struct hub_options *o);
/* Says `bye`, with a hint when to come back that spreads them, closes all sockets with 1001, waits
 * `timeout_ms` at most for the closes to be answered, and ends the thread. One that does not run is
 * left alone. Reads that are in flight go on, and are put up with until hub_free. */
void hub_stop(struct hub *h, int64_t timeout_ms);
/* Not before all reads have ended, as they have when the engine was stopped. */
void hub_free(struct hub **h);

/* ---- clients ------------------------------------------------------------------------- */

/* Room for one more socket, to be taken up by hub_adopt or given back by hub_unreserve. -EBUSY:
 * max_clients are there; -EAGAIN: too many who have not identified themselves; -ESHUTDOWN: the hub
 * does not run. Any thread. */
int hub_reserve(struct hub *h, bool identified) _must_check_;
void hub_unreserve(struct hub *h, bool identified);

struct hub_socket {
	int fd;                    /* a connected stream, taken over; made non-blocking */
	struct identity *identity; /* a reference, taken over; NULL: it will say in time */
	bool echo;                 /* returns every message as it came; needs no identity */
	const void *extra;         /* bytes that came behind the handshake; copied */
	size_t extra_len;
};

/* Takes the socket over, with what hub_reserve set aside. On failure (-ESHUTDOWN, -ENOMEM) it is
 * closed. Any thread. */
int hub_adopt(struct hub *h, const struct hub_socket *s);

/* ---- events -------------------------------------------------------------------------- */

/* A change of a table: a `change` event in `table:NAME`, and in `table:NAME:ID` of each key. */
struct hub_change {
	const char *table, *op;
	const char *const *key;
	size_t keys;
	bool known; /* false: any row may have changed; all rooms of the table are told */
};
/* Copies. What the mailbox has no room for is lost, and all are told to resync instead. Any thread.
 */
void hub_publish_change(struct hub *h, const struct hub_change *c);
/* Something that was published (provost.publish): an `event` in its room; where that is `user:SUB`,
 * to every connection of that user, joined or not, with `nid`. */
struct hub_event {
	int64_t id; /* no other event has it */
	const char *room, *name;
	const char *data; /* JSON */
	size_t data_len;
	bool durable; /* kept until it is acknowledged */
};
/* As hub_publish_change. */
void hub_publish_event(struct hub *h, const struct hub_event *e);
/* Whether there is anybody who could be told: else publishing is in vain. Any thread. */
bool hub_has_audience(struct hub *h);

/* ---- what is kept -------------------------------------------------------------------- */

/* An acknowledgement: of a user, by one of its clients. */
struct hub_ack {
	const char *subject;
	uint64_t client;
	const char *op_id; /* as JSON; NULL: it wants no ok */
	const int64_t *id;
	size_t ids;
};

/* Whoever keeps what was published for users until it is acknowledged. Called on the hub's thread;
 * copies, and must not block. -EAGAIN: too much is asked of it already; -ENOMEM. */
struct hub_keeper {
	/* What is kept for the user with an id above `after`, in the order of ids: hub_kept
	 * answers, with this number. */
	int (*load)(void *arg, const char *subject, int64_t after, uint64_t number);
	/* hub_acked answers. */
	int (*ack)(void *arg, const struct hub_ack *a);
	void *arg;
};
/* Before hub_start. Without one nothing is kept: what is for a user goes to who is there. */
void hub_set_keeper(struct hub *h, const struct hub_keeper *k);

struct hub_row {
	int64_t id;
	const char *name, *data; /* JSON */
	size_t data_len;
};
struct hub_kept {
	const char *subject;
	uint64_t number;
	const struct hub_row *row;
	size_t rows;
	bool more; /* there is more behind these */
};
/* Copies. -EAGAIN: the mailbox is full, try again soon; -ESHUTDOWN; -ENOMEM. Any thread. */
int hub_kept(struct hub *h, const struct hub_kept *k) _must_check_;
/* `done`: it is committed. Any thread. */
void hub_acked(struct hub *h, const struct hub_ack *a, bool done);

/* Generations were raised, and for now no more is known to be: what is watched is looked at. Cheap,
 * and never lost. Any thread. */
void hub_raised(struct hub *h);
/* Changes may have been missed: everybody in a room is told to resync, and what is watched is
 * looked at. Any thread. */
void hub_resync(struct hub *h);

/* ---- figures ------------------------------------------------------------------------- */

enum { HUB_CODES = 24 };

struct hub_stats {
	uint64_t clients, unidentified, users, rooms, memberships;
	uint64_t sessions; /* of those who have left and may resume */
	uint64_t adopted;  /* since the start, as all below */
	uint64_t events;   /* published to rooms with somebody in them */
	uint64_t messages_out, bytes_out, messages_in, bytes_in;
	uint64_t sends;            /* system calls */
	uint64_t ticks, batch_max; /* turns that sent something; messages to one client in one */
	uint64_t dropped, resyncs, stalls, resumed, lost_mail;
	uint64_t published; /* of the events: by provost.publish, for rooms */
	uint64_t durable;   /* for users, told to clients: each and each time */
	/* Paths that are watched. */
	uint64_t paths, subscriptions, body_bytes; /* now */
	uint64_t passed_bytes;     /* of bodies that are kept for slow clients alone */
	uint64_t reading, waiting; /* reads in flight; paths in line for one */
	uint64_t first_reads, refreshes, unchanged, failed_reads;
	uint64_t bodies, postponed; /* sent to clients; put off because they were behind */
	uint64_t sweeps, sweep_us, sweep_us_max; /* looks at all paths; what they took */
	struct {
		unsigned code;
		uint64_t count;
	} closed[HUB_CODES]; /* code 0: unused; the last counts all others */
};
void hub_stats(struct hub *h, struct hub_stats *ret);

#endif
