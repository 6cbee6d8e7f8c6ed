/*
 * durable: what was published. What is for a room goes to who is in there; what is for a user to
 * all of its clients, until one of them has acknowledged it. The hub's thread only.
 */
#ifndef PROVOST_WS_DURABLE_H
#define PROVOST_WS_DURABLE_H

#include "hub_impl.h"

struct op;

/* Something was published. Takes the mail over. */
void durable_event(struct hub *h, struct mail *m);
/* What was asked for. */
void durable_kept(struct hub *h, const struct hub_kept *k);
void durable_acked(struct hub *h, const struct hub_ack *a, bool done);
/* Once in a while. */
void durable_look_after(struct hub *h);
void durable_user_done(struct hub *h, struct user *u);

void op_ack(const struct op *o);

#endif
