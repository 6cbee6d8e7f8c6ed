/*
 * topics: paths that are watched (live endpoints), for the hub's thread alone but for what says
 * otherwise.
 *
 * A topic is a path, as its watchers spell it, with the key of its answer: all who watch it are
 * sent the same message. A watch is one client's of one topic.
 *
 * topics.c     topics and their states
 * reading.c    reading them, and what comes of it
 * sweep.c      when they are read anew
 * watch.c      who watches, and what each has been sent
 * shares.c     how much may be kept for one user
 * subscribe.c  what clients ask for, and what they are told
 *
 * When: whatever was changed raises generations, and soon after that (topics_raised) all topics are
 * looked at once: the sweep. A topic is read at once, then at most every refresh_interval; so much
 * is read at a time, first bodies before refreshes, the others wait in line. What failed is read
 * again after a pause that doubles, or as soon as something of it is raised.
 *
 * What: a topic keeps the message of what it last had to say, body or error, framed once. A watch
 * keeps what its client has been put last. It is put the topic's message when that says something
 * else, and the client's outbox is not backed up; else the watch is marked (`wanted`), and gets
 * what the topic says by the time it has drained: the latest wins. So little that is outdated waits
 * for anybody; should it be more than PASSED_MAX in all, those who take it too slowly are closed.
 */
#ifndef PROVOST_WS_TOPICS_H
#define PROVOST_WS_TOPICS_H

#include "hub_impl.h"
#include "provost/etag.h"
#include "provost/live.h"

enum {
	READS_FIRST_MAX = 64,   /* in flight, for somebody who has nothing yet */
	READS_REFRESH_MAX = 16, /* and for those who have something */
	SETTLE_US = 2000,       /* from the last sign of a change to the sweep */
	SETTLE_MAX_US = 20000,  /* and from the first */
	SWEEP_SHARE = 10, /* sweeps, and looks, take so much of the hub's time at most: a tenth */
	RETRY_MIN_MS = 1000,
	RETRY_MAX_MS = 30000,
	CROWDED_MS = 20,       /* until a read that there was no room for is tried again */
	DATA_AHEAD = 64 << 10, /* bytes of bodies that may wait for one client: then no further */
	PASSED_MAX = HUB_BODIES_MAX, /* bytes that are kept for none but clients who are behind */
	LOOK_MS = 1000,              /* at least so often what nobody tells of is looked at */
	REVIEWS_PER_TURN = 128,      /* watches whose right is looked at in one turn */
	WATCHED_BYTES = 64 << 10,    /* of paths that one client watches */
};

/* ---- topics -------------------------------------------------------------------------- */

enum topic_state {
	TOPIC_SETTLED, /* what it says holds, as far as is known */
	TOPIC_HELD,    /* its timer says when to read it: it is too soon, or failed */
	TOPIC_IN_LINE, /* to be read when it is its turn */
	TOPIC_READING,
};

/* What is said of a path. Equal to what a client has: there is nothing to be sent. */
struct said {
	unsigned status; /* 0: nothing yet; 200: a body; else an error */
	bool stale;
	unsigned char etag[ETAG_BYTES]; /* of a body */
};

struct topic {
	struct names_node node; /* by path, NUL, key */
	struct live_path path;
	enum topic_state state;
	enum live_urgency line;  /* TOPIC_IN_LINE: in which */
	bool urgent;             /* somebody waits who has nothing: is read as a request */
	bool again;              /* what is being read will not do: it is to be read once more */
	TAILQ_ENTRY(topic) link; /* of topics.list or topics.line */
	struct timer timer;      /* of what is settled: the end of its ttl */
	struct read *read;       /* TOPIC_READING */
	uint64_t refreshed_ms;   /* when a refresh was last begun; 0: never */
	uint64_t pause_ms;       /* it failed: what it was put off by; 0: it did not */
	uint64_t tried;          /* raises when it was last begun to be read, */
	uint64_t tried_ms;       /* and when that was */
	uint64_t reads;          /* begun */
	struct watch **watch;
	uint32_t watches, cap;

	struct said said;
	struct message *message; /* which says it; NULL: nothing yet */
	gen_slot *slot;          /* what it was read from: of the last that was read so far */
	size_t slots;
	uint64_t start;

	struct watch *payer; /* of whose user's share the message is; NULL: of nobody's yet */
	bool orphan;         /* on topics.orphans */
	TAILQ_ENTRY(topic) orphaned;
	uint32_t path_len;
	char text[]; /* the path; NUL; the key */
};
TAILQ_HEAD(topic_list, topic);

/* In flight. Whoever carries it out gives it back by the list `ended`, whatever has become of the
 * topic or the hub: so it cannot be lost for want of room or memory. */
struct read {
	STAILQ_ENTRY(read) link;
	struct hub *hub;
	struct topic *topic; /* the hub's thread's; NULL: nobody watches any more */
	enum live_urgency urgency;
	struct live_read live;
};
STAILQ_HEAD(read_list, read);

struct topics {
	struct live *live; /* NULL: there are none */
	struct names by_name;
	struct topic_list settled, held, reading;
	struct topic_list line[2]; /* by enum live_urgency */
	unsigned in_flight[2];
	uint64_t crowded_ms[2]; /* nothing is begun before */
	struct wheel wheel;
	struct buf name; /* that is being looked up */

	uint64_t sweep_us,
	    sweep_last_us;          /* when to sweep: as it is put off, and at the latest; 0 */
	uint64_t rest_us;           /* not before */
	uint64_t look_rest_us;      /* nor a look before this */
	uint64_t looked_ms, raises; /* when, and what, live_raises was looked at */
	size_t bytes;               /* of all messages */
	struct topic_list orphans;  /* whose payer has left: others are to pay */
	/* Messages that topics do not say any more, while clients have yet to be sent them. */
	struct message **passed;
	size_t passed_count, passed_cap, passed_bytes;
	TAILQ_HEAD(, client) review;

	/* Any thread's, under hub.lock. */
	struct read_list ended;
	bool raised;
};

struct topics *topics_new(struct live *l);
/* No read may be left in flight. */
void topics_free(struct hub *h);

/* The topic, found or made, without a watch yet; takes the path's references over, also on failure.
 * -EBUSY: too many are watched, or their bodies take too much room; -ENOMEM. */
int topic_get(struct hub *h, const char *text, size_t n, struct live_path *p,
              struct topic **ret) _must_check_;
/* One that nobody watches any more goes. */
void topic_put(struct hub *h, struct topic *t);
/* Whether what it says is known to hold, right now. */
bool topic_is_current(const struct hub *h, const struct topic *t);
/* Somebody waits for what it says: it is read next. */
void topic_hasten(struct hub *h, struct topic *t);

/* What has become old is to be read: now, or when it is not too soon after the last time. */
void topic_refresh(struct hub *h, struct topic *t);
void topic_line_up(struct hub *h, struct topic *t);
void topic_hold(struct hub *h, struct topic *t, uint64_t until_ms);
/* The one place of transition. `at_ms`: when it is to be looked at, whatever happens; UINT64_MAX:
 * not because of the time. */
void topic_move(struct hub *h, struct topic *t, enum topic_state to, uint64_t at_ms);
/* Nobody can be told any more: they are told why. */
void topic_end(struct hub *h, struct topic *t, unsigned status, const char *detail);
/* What it says from now on; takes the reference over. NULL: nothing. */
void topic_set_message(struct hub *h, struct topic *t, struct message *m);

/* Forgets what everybody has been sent. True: what was not is too much. */
bool topics_forget_passed(struct hub *h);

/* Reads that have ended, and those that there is room for. */
void topics_take_ended(struct hub *h);
void topics_begin(struct hub *h);

/* ---- watches ------------------------------------------------------------------------- */

struct watch {
	struct topic *topic;
	struct client *client;
	uint32_t at;     /* in the topic's array */
	bool wanted;     /* its client is backed up: on client->wanted */
	uint64_t since;  /* reads begun by the topic when it came to it, if one was in flight */
	struct said has; /* what its client has been put */
	TAILQ_ENTRY(watch) link, want;
};

struct watch *watch_find(const struct client *c, const char *text, size_t n);
/* NULL when out of memory. */
struct watch *watch_new(struct hub *h, struct client *c, struct topic *t);
/* To another topic. -ENOMEM: nothing has changed. The former goes if that was its last. */
int watch_move(struct hub *h, struct watch *w, struct topic *to) _must_check_;
void watch_free(struct hub *h, struct watch *w);
/* Puts what the topic says, unless its client has it; or marks it, for when there is room. */
void watch_offer(struct hub *h, struct watch *w);
/* What the topic says now is not for it any more: it waits for what will be read. */
void watch_decline(struct watch *w);
/* The topic has something to say. `old`: it was overtaken, or may have been, so it is not for those
 * who have come while it was read. True: there are such. */
bool watch_offer_all(struct hub *h, struct topic *t, bool old);
/* The topic is over: everybody is told the message, which says so. */
void watch_end_all(struct hub *h, struct topic *t, struct message *m);

/* ---- shares.c ------------------------------------------------------------------------ */

/* Whether what the topic says has room in the share of one who watches it; else it is to end. */
bool share_take(struct topic *t) _must_check_;
/* It is of nobody's any more. */
void share_drop(struct topic *t);
/* Before another message takes the place of the topic's. */
void share_resize(struct topic *t, const struct message *m);
/* Its payer goes: another is found by share_place_orphans. */
void share_orphan(struct hub *h, struct topic *t);
/* Before the topic is freed. */
void share_forget(struct hub *h, struct topic *t);
void share_place_orphans(struct hub *h);
/* Ends the topic, for want of room. */
void share_end(struct hub *h, struct topic *t);

/* ---- subscribe.c --------------------------------------------------------------------- */

/* What is said of a path, to all who watch it. NULL when out of memory. */
struct message *data_message(struct hub *h, const struct topic *t, const struct live_read *r);
struct message *path_error(struct hub *h, const char *text, size_t n, unsigned status,
                           const char *detail, bool live);
/* Finds anew what the watch is of, as the catalogue and its client's rights are now. */
void watch_review(struct hub *h, struct watch *w);

#endif
