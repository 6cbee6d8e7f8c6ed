/*
 * event: what provost.publish has sent, as text: whether it has, and what it says. Pure functions.
 */
#ifndef PROVOST_COURIER_EVENT_H
#define PROVOST_COURIER_EVENT_H

#include "provost/change.h"

enum { EVENT_KEY_LEN = 64 }; /* HMAC-SHA256's block */

/* The key as a block, from the two that the database holds, as hexadecimal text. -EINVAL: they are
 * not of one key. */
int event_key(const char *ipad, const char *opad, unsigned char key[EVENT_KEY_LEN]) _must_check_;

/* Whether the digest (CHANGE_DIGEST_LEN digits) is the text's. In a time that does not tell where
 * it is not. */
bool event_is_genuine(const unsigned char key[EVENT_KEY_LEN], const char *digest, const char *text);

/* {"id":N,"room":"…","name":"…","data":…} or {"id":N,"room":"…","name":"…","ref":true} */
struct event {
	int64_t id;
	char *room, *name;
	const char *data; /* in the text; NULL: it is in provost.outbox */
	size_t data_len;
	bool durable; /* for a user: it is in provost.outbox until it is acknowledged */
};

/* Of a text that is genuine, and so written by provost.publish: members in this order, without
 * blanks. 0, and `ret` is to be given to event_done; -EINVAL; -ENOMEM. */
int event_parse(const char *text, struct event *ret) _must_check_;
void event_done(struct event *e);
#define _cleanup_event_ _cleanup_(event_done)

#endif
