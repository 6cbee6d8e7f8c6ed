/*
 * change: a message on the channel `provost`, by which the database tells what was changed.
 *
 * Sent by the triggers of `provost triggers install`, by writes (their sync tokens), by the
 * listener to itself (heartbeats), and by whoever wants everything thrown away. Any role may send
 * on the channel: nothing here is trusted beyond that a raised tag costs a miss. Pure functions.
 *
 *   {"table":"course","op":"UPDATE","key":"id","values":{"id":["a"],"institutionId":["x","y"]}}
 *       `table`: the tag of the topmost table of its tree (`course`, in another schema than public
 *       `shop.course`). `op`: INSERT, UPDATE, DELETE, TRUNCATE. `values`: of each column that the
 *       trigger knows, the distinct values of all changed rows, old and new, as PostgreSQL's text;
 *       NULLs are left out. `key`: the column that is the primary key, absent when that has
 *       several. Without `values` nothing is known of the rows.
 *   sync TOKEN          32 hexadecimal digits
 *   beat TOKEN NUMBER   of the listener whose TOKEN it is
 *   epoch               everything
 *   event DIGEST {"id":1,"room":"news","name":"saved","data":{}}
 *       of provost.publish. DIGEST: 64 hexadecimal digits, the HMAC-SHA256 of the text behind it.
 * Only whoever has the key can tell whether it is one: nothing of it is looked at here.
 */
#ifndef PROVOST_CHANGE_H
#define PROVOST_CHANGE_H

#include "provost/base.h"

#define CHANGE_CHANNEL "provost"

enum {
	CHANGE_PAYLOAD_MAX = 7999, /* bytes; PostgreSQL's limit */
	CHANGE_TOKEN_LEN = 32,
	CHANGE_DIGEST_LEN = 64,
};

enum change_kind { CHANGE_TABLE, CHANGE_SYNC, CHANGE_BEAT, CHANGE_EPOCH, CHANGE_EVENT };

struct change_column {
	char *name;
	char **value;
	size_t values;
};

struct change {
	enum change_kind kind;
	char token[CHANGE_TOKEN_LEN + 1]; /* CHANGE_SYNC, CHANGE_BEAT */
	uint64_t number;                  /* CHANGE_BEAT */
	/* CHANGE_EVENT; in the payload. */
	const char *digest, *event;
	/* CHANGE_TABLE. */
	char *table;
	const char *op;  /* static */
	const char *key; /* of column, or NULL */
	bool known;      /* `values` was there */
	struct change_column *column;
	size_t columns;
};

/* 0, and `ret`, which may borrow from the payload, is to be given to change_done; -EINVAL for
 * anything else than the above, -ENOMEM, and `ret` is untouched. Members that are not named above
 * are passed over. */
int change_parse(const char *payload, struct change *ret) _must_check_;
void change_done(struct change *c);
#define _cleanup_change_ _cleanup_(change_done)

#endif
