/*
 * delay: numbered places at which a test has threads linger, and rules that it has broken.
 *
 * Only in builds with `-Ddelays=true`, for tests/consistency; in all others DELAY is nothing and
 * BROKEN is false. Each point stands between two steps whose order in time matters, so that what
 * takes luck otherwise happens in every run. At start the environment says
 *
 *   PROVOST_DELAYS=all=0.02:5ms,raise@MHD=0.5:20ms
 *       NAME[@THREAD]=PROBABILITY:MOST, later ones before earlier; only threads whose name begins
 * so PROVOST_BREAK=join                           rules, separated by commas
 *
 * A point waits with that probability for up to that long, at random. Some lie under a lock, for
 * the sake of threads that do not take it. Read once, before there are threads; constant after.
 */
#ifndef PROVOST_DELAY_H
#define PROVOST_DELAY_H

#include "provost/errors.h"

enum delay_point {
	DELAY_FILL_START,  /* before a fill notes its start */
	DELAY_FILL_SEND,   /* between that and its statement */
	DELAY_FILL_RESULT, /* when its result is there */
	DELAY_STORE,       /* before it is stored */
	DELAY_PUT,         /* between the cache's check and the insertion, under its lock */
	DELAY_JOIN,        /* before a request looks for a fill to join */
	DELAY_JOINED,      /* between that it may, and that it does, under the engine's lock */
	DELAY_RAISE,       /* between the clock's advance and the slot's */
	DELAY_TAGS,        /* between two tags of one change */
	DELAY_LISTEN,      /* before a notification is looked at */
	DELAY_TOKEN,       /* before whoever waits for a token is told */
	DELAY_WRITE,       /* before a write is sent */
	DELAY_COMMIT,      /* when it has committed, before its token is waited for */
	DELAY_ANSWER,      /* after that, before it is answered */
	DELAY_COUNT,
};

enum delay_rule {
	RULE_JOIN,    /* who comes after a change does not join a fill begun before it */
	RULE_STORE,   /* what is stored counts as begun when its statement was sent */
	RULE_MAXIMUM, /* a slot is raised to the maximum of itself and the clock */
	RULE_TOKEN,   /* the token is sent by a statement after the one that writes */
	RULE_COUNT,
};

#ifdef WITH_DELAYS

/* Either may be NULL. 0; -EINVAL with errors. */
int delay_setup(const char *delays, const char *broken, struct errors *errs) _must_check_;
void delay_at(enum delay_point p);
bool delay_is_broken(enum delay_rule r);

#define DELAY(p)  delay_at(p)
#define BROKEN(r) __builtin_expect(delay_is_broken(r), false)

#else

#define DELAY(p)  ((void)0)
#define BROKEN(r) false

#endif
#endif
