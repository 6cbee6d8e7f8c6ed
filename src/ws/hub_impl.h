/*
 * What the files of the hub share. All of it is the hub's thread's, but for the mailbox and what
 * says otherwise; `now` is the hub's own, read once per turn.
 *
 * hub.c      life, the loop
 * mail.c     what other threads leave for it
 * client.c   a socket: reading, sending, closing, deadlines
 * outbox.c   what waits to be sent to one client
 * message.c  what is sent: framed once
 * ops.c      what clients ask for
 * room.c     rooms and who is in them
 * session.c  what of a client outlives its socket, and the history for it
 * people.c   users and addresses, and their limits
 * events.c   changes, resync
 * publish.c  what others say of what was published
 * durable.c  what was published, and who has been told: durable.h
 * topics.c   paths that are watched, and by whom: topics.h
 * names.c, wheel.c  by name; by time
 */
#ifndef PROVOST_WS_HUB_IMPL_H
#define PROVOST_WS_HUB_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "names.h"
#include "provost/hub.h"
#include "provost/ws.h"
#include "wheel.h"

enum {
	READ_MAX = 4 << 10,       /* bytes that a client gets read in its turn */
	READ_ECHO_MAX = 64 << 10, /* of one that is echoed: the buffer */
	ECHOES_MAX = 64, /* echoed at once: each may hold HUB_ECHO_MAX that comes, and that goes */
	EVENTS_PER_TURN = 256,
	UNSENT_MAX = 128 << 10,  /* bytes that the kernel may hold unsent for one client */
	IOV_MAX_USED = 64,       /* messages in one send */
	BACKLOG_MESSAGES = 8192, /* that wait for one client */
	REPLIES_MAX = 1024,      /* that wait for one client: more is a flood */
	REPLY_BYTES_MAX = 256 << 10,
	/* Messages of a client, control frames included: what it may save up, and per second. */
	ALLOWANCE = 512,
	ALLOWANCE_PER_S = 128,
	AUTH_ALLOWANCE = 32, /* messages that an `auth` counts as */
	HISTORY_MESSAGES = 4096,
	HISTORY_BYTES = 4 << 20,
	SESSIONS_PER_USER = 64, /* that wait for somebody to resume them */
	MAIL_MAX = 8192,
	MAIL_BYTES = 8 << 20,
	MAIL_PER_TURN = 64,    /* as a send can carry of them */
	CLOSE_MS = 5000,       /* for the close to be taken and answered */
	DISCARD_MAX = 1 << 20, /* bytes read on behind a close */
	CHECK_MS = 1000,       /* between looks whether identities still hold */
	SESSION_ID_LEN = 32,
	OP_ID_MAX = 64, /* bytes of an `id`, as JSON */
	LOADS_KEPT = 4, /* pages of what is kept that a client was told of */
};

/* ---- messages ------------------------------------------------------------------------ */

enum message_kind {
	MESSAGE_EVENT,
	MESSAGE_DATA, /* what is at a path that the client watches */
	MESSAGE_REPLY,
	MESSAGE_RESYNC,
	MESSAGE_CLOSE,
};
enum {
	KINDS_EVENTS = 1u << MESSAGE_EVENT,
	KINDS_PASSING = KINDS_EVENTS | 1u << MESSAGE_DATA, /* nobody has asked for each of them */
	KINDS_ALL = (1u << (MESSAGE_CLOSE + 1)) - 1
};

struct message {
	uint32_t refs;
	uint32_t size; /* of the frame, header included */
	uint8_t kind;
	bool passed;   /* its topic says something else by now */
	uint64_t room; /* id of it; events only */
	uint64_t seq;
	uint8_t frame[];
};

/* NULL when out of memory. */
struct message *message_new(enum message_kind kind, enum ws_opcode opcode, const void *payload,
                            size_t n);
static inline struct message *message_ref(struct message *m)
{
	m->refs++;
	return m;
}
void message_unref(struct message *m);
/* Of a payload in parts. */
struct message *message_of(enum message_kind kind, enum ws_opcode opcode, const struct iovec *part,
                           size_t parts);

/* ---- what waits to be sent ----------------------------------------------------------- */

struct outbox {
	struct message **ring; /* `few`, allocated, or NULL: nothing has waited yet */
	uint32_t cap, head, count;
	uint32_t sent;    /* bytes of the first that have gone */
	uint32_t replies; /* to what the client has asked */
	uint32_t data;    /* MESSAGE_DATA, which count neither towards `bytes` nor as events */
	size_t bytes, reply_bytes, data_bytes;
	struct message *few[2]; /* most of the time there is not more */
};

/* Takes a reference. -ENOMEM. */
int outbox_push(struct outbox *o, struct message *m) _must_check_;
static inline struct message *outbox_at(const struct outbox *o, uint32_t i)
{
	return o->ring[(o->head + i) & (o->cap - 1)];
}
/* The first `n` bytes have gone. True: the resync was among what is now gone. */
bool outbox_sent(struct outbox *o, size_t n);
/* Drops what is of these kinds (KINDS_…), but not what is half sent. Returns how many. */
size_t outbox_drop(struct outbox *o, unsigned kinds);
void outbox_done(struct outbox *o);

/* ---- rooms --------------------------------------------------------------------------- */

struct room {
	struct names_node node;
	uint64_t id; /* never used twice */
	struct member **member;
	uint32_t members, cap;
	uint32_t len;
	char name[];
};

struct member {
	struct room *room;
	struct session *session;
	uint32_t at;     /* in the room's array */
	uint64_t since;  /* seq: what came before is not for it */
	uint64_t joined; /* seq: what came after it has been told already */
};

/* ---- sessions ------------------------------------------------------------------------ */

/* Of a client, or of one who has left. */
struct session {
	struct names_node node;
	char id[SESSION_ID_LEN + 1];
	struct client *client;     /* NULL: it has left */
	struct identity *identity; /* whose it is */
	struct member **member;
	uint32_t members, cap;
	uint64_t until_ms; /* without a client */
	TAILQ_ENTRY(session) left, of_user;
};

struct history_entry {
	struct message *message;
	uint64_t at_ms;
};

/* ---- people -------------------------------------------------------------------------- */

TAILQ_HEAD(client_list, client);
TAILQ_HEAD(user_list, user);
STAILQ_HEAD(mail_list, mail);
TAILQ_HEAD(session_list, session);
TAILQ_HEAD(watch_list, watch);

/* Somebody with a socket, or a session that waits. */
struct user {
	struct names_node node;
	struct client_list clients; /* those that count, the oldest first */
	struct session_list left;   /* the oldest first */
	uint32_t connected, counted, waiting;
	size_t body_bytes; /* of its share: shares.c */
	/* durable.c's. */
	struct client_list everyone; /* all that are connected */
	uint64_t load;               /* that is under way; 0: none is */
	bool again;                  /* it will not do */
	struct mail_list held;       /* that came meanwhile */
	size_t held_count, held_bytes;
	int64_t *missed; /* ids of what came and was not held */
	size_t misses;
	struct told *told; /* what was told by pages lately */
	size_t tolds;
	uint64_t told_ms;
	TAILQ_ENTRY(user) telling; /* on hub->telling while there is any */
	char subject[];
};

struct address {
	struct names_node node;
	uint8_t bytes[16];
	uint32_t count;
};

/* ---- clients ------------------------------------------------------------------------- */

enum client_state {
	CLIENT_UNIDENTIFIED, /* may say who it is */
	CLIENT_OPEN,
	CLIENT_CLOSING,  /* our close is on its way, or waits for its answer */
	CLIENT_DRAINING, /* we have said all; what still comes is dropped until the end */
	CLIENT_DEAD,     /* its descriptor is closed; freed at the end of the turn */
};

/* How much of what is kept for its user it has been told: durable.c. */
enum durable { DURABLE_NONE, DURABLE_OWED, DURABLE_LOADING, DURABLE_MORE, DURABLE_CURRENT };

struct client {
	/* What telling it something needs stands together: two cache lines. */
	unsigned magic;
#define CLIENT_MAGIC 0x50C4E7C1u
	int fd;
	uint8_t state;
	bool echo;
	bool blocked;      /* EPOLLOUT is asked for */
	bool deaf;         /* EPOLLIN is not */
	bool to_flush;     /* on hub->flush */
	bool resync_waits; /* in the outbox: events are not put behind it until it has gone */
	bool said_close;   /* the peer has */
	bool failed;       /* out of memory: to be closed when it is its turn */
	bool broken;       /* the socket is: to be dropped when it is its turn */
	bool wants;        /* `wanted` is not empty */
	uint8_t durable;   /* enum durable */
	bool was_full;     /* it had no room for something of what it is owed */
	struct outbox out;
	TAILQ_ENTRY(client) flush;
	uint64_t progress_ms; /* when it last took something, or the outbox was last empty */

	bool counted;       /* in user->clients */
	bool unidentified;  /* counted as such */
	uint32_t allowance; /* messages that it may send at once */
	uint32_t discarded; /* bytes */
	uint64_t refilled_ms;
	uint64_t number;
	struct ws_decoder decoder;
	struct timer timer;
	uint64_t heard_ms;
	uint64_t pinged_ms; /* of the last ping; 0: there was none */
	uint64_t next_ping_ms;
	uint64_t until_ms;   /* of the state: to identify itself, to close */
	uint64_t expires_ms; /* of the identity, by our clock; UINT64_MAX: never */
	struct identity *identity;
	struct session *session; /* once it is known */
	struct user *user;
	struct address *address;
	TAILQ_ENTRY(client) link, of_user, of_subject;
	uint64_t load[LOADS_KEPT]; /* what it was, or is to be, told of: the last first */
	int64_t cursor;            /* it was told what is kept up to this id */
	struct watch_list watches; /* paths that it watches, */
	struct watch_list wanted;  /* and those of them that it is to be sent when there is room */
	uint32_t watched, watched_bytes;
	bool to_review; /* on topics->review */
	TAILQ_ENTRY(client) review;
};

/* ---- mail ---------------------------------------------------------------------------- */

enum mail_kind {
	MAIL_ADOPT,
	MAIL_CHANGE,
	MAIL_RESYNC,
	MAIL_CONFIGURE,
	MAIL_EVENT,
	MAIL_KEPT,
	MAIL_ACKED,
};

struct mail {
	STAILQ_ENTRY(mail) link;
	enum mail_kind kind;
	size_t size;
	bool done; /* MAIL_ACKED */
	/* What these point to lies behind. */
	union {
		struct hub_socket socket;   /* MAIL_ADOPT */
		struct hub_change change;   /* MAIL_CHANGE */
		struct hub_event event;     /* MAIL_EVENT */
		struct hub_kept kept;       /* MAIL_KEPT */
		struct hub_ack acked;       /* MAIL_ACKED; without ids */
		struct hub_options options; /* MAIL_CONFIGURE */
	};
};

/* ---- the hub ------------------------------------------------------------------------- */

/* Written by the hub's thread alone, read by all. */
struct figures {
	_Atomic uint64_t clients, unidentified, users, rooms, memberships, sessions, adopted,
	    events, messages_out, bytes_out, messages_in, bytes_in, sends, ticks, batch_max,
	    dropped, resyncs, stalls, resumed, paths, subscriptions, body_bytes, passed_bytes,
	    reading, waiting, first_reads, refreshes, unchanged, failed_reads, bodies, postponed,
	    sweeps, sweep_us, sweep_us_max, published, durable;
	_Atomic uint64_t closed[HUB_CODES];
};

struct hub {
	unsigned magic;
#define HUB_MAGIC 0x4B0BB0B4u
	struct auth *auth;

	/* Any thread's. */
	pthread_mutex_t lock; /* guards mail, mail_count, mail_bytes, mail_lost, running, reserved;
	                         of topics what is said there */
	struct mail_list mail;
	size_t mail_count, mail_bytes;
	bool mail_lost, running;
	uint32_t reserved, reserved_unidentified, limit, limit_unidentified;
	uint64_t lost_mail;
	atomic_bool stops;
	_Atomic int64_t stop_ms;
	struct figures figures;

	/* Of start and stop, one at a time. */
	pthread_t thread;

	/* The hub's thread's. */
	struct hub_options options;
	int epoll_fd, wake_fd;
	bool coarse; /* there is no epoll_pwait2 */
	uint64_t now_us, now_ms, flushed_us, check_ms;
	uint64_t auth_generation;
	int64_t ahead_s;         /* of now_ms the time of day is */
	struct mail_list unread; /* fetched from `mail` */
	uint64_t seq, room_id, client_number;
	struct client_list clients, dead, flush;
	struct names rooms, users, addresses, sessions;
	struct session_list left; /* all users', the oldest first */
	struct wheel wheel;
	struct topics *topics;
	struct hub_keeper keeper;
	uint64_t load_number;
	struct user_list telling;
	size_t held_bytes;
	bool asks_wait;   /* the keeper took no more: some are owed what nobody was asked for */
	uint64_t more_ms; /* when those who were told a page are told the next; 0: there are none */
	struct history_entry *history; /* a ring of HISTORY_MESSAGES */
	size_t history_head, history_count, history_bytes;
	uint64_t history_floor; /* what is at or below it cannot be told any more */
	struct message *ping;
	unsigned echoes; /* clients that are echoed */
	uint64_t batch;  /* messages sent in this turn's largest send */
	bool sent;       /* something was, in this turn */
	bool alone;      /* the mail in hand is all there is, and the tick is over */
	char *input;     /* READ_ECHO_MAX bytes */
	struct buf text; /* JSON that is being made */
};

#define COUNT(h, what, n)                                                                          \
	atomic_store_explicit(&(h)->figures.what,                                                  \
	                      atomic_load_explicit(&(h)->figures.what, memory_order_relaxed) +     \
	                          (uint64_t)(n),                                                   \
	                      memory_order_relaxed) /* figures: nothing hangs on their order */

static inline bool client_is_open(const struct client *c)
{
	return c->state <= CLIENT_OPEN;
}

/* ---- mail.c -------------------------------------------------------------------------- */

/* Mail with so many bytes behind it; NULL when out of memory. */
struct mail *hub_mail_new(enum mail_kind kind, size_t extra);
void hub_mail_free(struct mail *m);
/* Takes the mail over. -ESHUTDOWN, -ENOBUFS: it is not taken. Any thread. */
int hub_post(struct hub *h, struct mail *m) _must_check_;
/* There was no memory for mail. Any thread. */
void hub_say_lost(struct hub *h);
/* Under h->lock, while it runs: once it has stopped the descriptor may be somebody else's. */
void hub_wake(struct hub *h);

/* ---- client.c ------------------------------------------------------------------------ */

void client_adopt(struct hub *h, const struct hub_socket *s);
void client_readable(struct hub *h, struct client *c);
void client_flush(struct hub *h, struct client *c);
void client_due(struct hub *h, struct client *c);
/* Whatever it is, behind what waits. Takes the reference over; NULL: out of memory, upon which the
 * client is closed when its turn to be sent to comes, not before: rooms may be walked over. */
void client_put(struct hub *h, struct client *c, struct message *m);
/* The same for a reply: a flood of them that are not taken closes. */
void client_reply(struct hub *h, struct client *c, struct message *m);
/* An event, of a room that it is in. Keeps its own reference. */
void client_event(struct hub *h, struct client *c, struct message *m);
/* Sends what waits, from within a walk over a room. */
void client_send_now(struct hub *h, struct client *c);
/* Drops events that it has not been sent, says close, and lets go of all but the socket. */
void client_close(struct hub *h, struct client *c, unsigned code, const char *reason);
/* Ends it at once. `code`: as which it is counted, unless a close has been. */
void client_drop(struct hub *h, struct client *c, unsigned code);
void client_arm(struct hub *h, struct client *c);
/* It has said who it is: true, with a session; false: it was closed. Takes the reference over. */
bool client_identify(struct hub *h, struct client *c, struct identity *i);
/* From the time of day, as it is now. */
void client_set_expiry(struct hub *h, struct client *c);
/* The same subject's, anew. Takes the reference over. */
void client_renew(struct hub *h, struct client *c, struct identity *i);
/* Whether its identity still holds; else it is closed. */
bool client_check(struct hub *h, struct client *c);
void client_free(struct client *c);
void count_close(struct hub *h, unsigned code);
/* What the i-th of figures.closed counts. */
unsigned client_code(size_t i);

/* ---- ops.c --------------------------------------------------------------------------- */

/* A text message of a client's. */
void ops_take(struct hub *h, struct client *c, const char *text, size_t n);
void ops_hello(struct hub *h, struct client *c);
/* One resync, for all its rooms. */
void ops_resync(struct hub *h, struct client *c);
void ops_bye(struct hub *h, struct client *c, uint64_t retry_ms);
/* Takes it out of rooms that it has no right to any more, and says so. */
void ops_review(struct hub *h, struct client *c);
/* Of h->text, as a reply. */
struct message *ops_message(struct hub *h, enum message_kind kind);

/* ---- room.c -------------------------------------------------------------------------- */

/* The room's name as it is kept: roles in lower case. -EINVAL: it is no room's name. */
int room_normalise(const char *name, size_t n, char out[HUB_ROOM_MAX + 1],
                   size_t *ret_n) _must_check_;
bool room_permits(const struct hub *h, const char *name, size_t n, const struct identity *i);
struct room *room_find(const struct hub *h, const char *name, size_t n);
/* NULL: it is not in there. */
struct member *room_member(const struct session *s, const struct room *r);
/* 0, also when it is there already; -ENOSPC: in too many; -ENOMEM. */
int room_join(struct hub *h, struct session *s, const char *name, size_t n) _must_check_;
void room_leave(struct hub *h, struct session *s, const char *name, size_t n);
/* A room that nobody is in any more is freed. */
void member_free(struct hub *h, struct member *m);

/* ---- session.c ----------------------------------------------------------------------- */

/* NULL when out of memory. */
struct session *session_new(struct hub *h, struct client *c);
/* Its client goes: it waits, if there is something to wait for. */
void session_leave(struct hub *h, struct session *s);
void session_free(struct hub *h, struct session *s);
/* Those whose time is over. */
void sessions_expire(struct hub *h);
/* Gives the rooms of session `id` to the client. False: there is none of its subject. */
bool session_take(struct hub *h, struct client *c, const char *id);
/* What came since `seq`, to the client. False: that is not known any more. */
bool history_tell(struct hub *h, struct client *c, uint64_t seq);
void history_add(struct hub *h, struct message *m);
void history_forget(struct hub *h);
void history_expire(struct hub *h);

/* ---- people.c ------------------------------------------------------------------------ */

/* NULL when out of memory. */
struct user *user_get(struct hub *h, const char *subject);
void user_put(struct hub *h, struct user *u);
/* Counts the client as its identity's. -EDQUOT: that has too many, and the policy is to reject.
 * -ENOMEM. */
int user_enter(struct hub *h, struct client *c) _must_check_;
void user_exit(struct hub *h, struct client *c);
int address_enter(struct hub *h, struct client *c) _must_check_;
void address_exit(struct hub *h, struct client *c);

/* ---- events.c ------------------------------------------------------------------------ */

void events_change(struct hub *h, const struct hub_change *c);
/* To those in the room, now and later. Takes the reference over. */
void events_tell(struct hub *h, const struct room *r, struct message *m);
void events_resync(struct hub *h);

/* ---- durable.c ----------------------------------------------------------------------- */

/* It is to be told all that is kept for its user: anew, where it has been told some. */
void durable_owe(struct hub *h, struct client *c);
/* There may be room for what it is owed. */
void durable_room(struct hub *h, struct client *c);

/* ---- topics.c, watch.c, subscribe.c -------------------------------------------------- */

/* What the turn is for them: reads that have ended, sweeps, what is due. */
void topics_turn(struct hub *h);
/* How long nothing of that is due, if nobody wakes the hub. */
uint64_t topics_wait_us(const struct hub *h);
/* Something was raised: there will be a sweep, soon. */
void topics_raised(struct hub *h);
/* The interval may be another. */
void topics_configured(struct hub *h);
/* There is room in the outbox for what the client wants. */
void watches_pour(struct hub *h, struct client *c);
void watches_free(struct hub *h, struct client *c);
/* Its rights may be others: looks at each of its watches. */
void watches_review(struct hub *h, struct client *c);
/* `,"paths":[…]` */
void watches_add(struct buf *b, const struct client *c);

/* ---- options ------------------------------------------------------------------------- */

void hub_options_copy(struct hub_options *to, const struct hub_options *from);
void hub_options_done(struct hub_options *o);

#endif
