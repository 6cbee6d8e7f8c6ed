/*
 * ops: what a client has asked for, as those who carry it out see it.
 */
#ifndef PROVOST_WS_OPS_H
#define PROVOST_WS_OPS_H

#include "hub_impl.h"

struct json_object;

struct op {
	struct hub *h;
	struct client *c;
	struct json_object *root;
	const char *id; /* as JSON, or NULL: none was given */
};

/* Opens a message in h->text, to which members may be added; ops_message makes it. */
struct buf *ops_begin(struct hub *h, const char *ev);
void ops_add_text(struct buf *b, const char *name, const char *value, size_t n);

/* A text member, or NULL. */
const char *op_text(const struct op *o, const char *name, size_t *ret_n);
/* Answers; any reply may close the client, which lets go of all it has. */
void op_error(const struct op *o, unsigned code, const char *message);
/* Opens the ok, to which members may be added, or says that none is wanted: NULL. */
struct buf *op_ok(const struct op *o);
void op_ok_end(const struct op *o, const struct buf *b);

void op_subscribe(const struct op *o);
void op_unsubscribe(const struct op *o);

#endif
