#include <errno.h>

#include "hub_impl.h"

enum { RING_KEPT = 16 };

static void free_ring(struct outbox *o)
{
	if (o->ring != o->few)
		free(o->ring);
}

static int grow(struct outbox *o)
{
	if (!o->cap) {
		o->ring = o->few;
		o->cap = ELEMENTSOF(o->few);
		return 0;
	}
	uint32_t cap = o->cap * 2;
	struct message **ring = malloc(cap * sizeof(struct message *));
	if (!ring)
		return -ENOMEM;
	for (uint32_t i = 0; i < o->count; i++)
		ring[i] = outbox_at(o, i);
	free_ring(o);
	o->ring = ring;
	o->cap = cap;
	o->head = 0;
	return 0;
}

static void count(struct outbox *o, const struct message *m)
{
	o->count++;
	o->bytes += m->kind != MESSAGE_DATA ? m->size : 0;
	o->data += m->kind == MESSAGE_DATA;
	o->data_bytes += m->kind == MESSAGE_DATA ? m->size : 0;
	o->replies += m->kind == MESSAGE_REPLY;
	o->reply_bytes += m->kind == MESSAGE_REPLY ? m->size : 0;
}

static void uncount(struct outbox *o, const struct message *m)
{
	o->count--;
	o->bytes -= m->kind != MESSAGE_DATA ? m->size : 0;
	o->data -= m->kind == MESSAGE_DATA;
	o->data_bytes -= m->kind == MESSAGE_DATA ? m->size : 0;
	o->replies -= m->kind == MESSAGE_REPLY;
	o->reply_bytes -= m->kind == MESSAGE_REPLY ? m->size : 0;
}

int outbox_push(struct outbox *o, struct message *m)
{
	int r = o->count == o->cap ? grow(o) : 0;
	if (r < 0)
		return r;
	o->ring[(o->head + o->count) & (o->cap - 1)] = message_ref(m);
	count(o, m);
	return 0;
}

/* An idle client keeps little or nothing. */
static void shrink(struct outbox *o)
{
	if (o->count > 0 || o->cap <= RING_KEPT)
		return;
	free_ring(o);
	o->ring = NULL;
	o->cap = o->head = 0;
}

bool outbox_sent(struct outbox *o, size_t n)
{
	bool resync = false;
	while (o->count > 0) {
		struct message *m = outbox_at(o, 0);
		size_t left = m->size - o->sent;
		if (n < left) {
			o->sent += (uint32_t)n;
			return resync;
		}
		n -= left;
		resync |= m->kind == MESSAGE_RESYNC;
		uncount(o, m);
		message_unref(m);
		o->head = (o->head + 1) & (o->cap - 1);
		o->sent = 0;
		if (n == 0)
			break;
	}
	shrink(o);
	return resync;
}

size_t outbox_drop(struct outbox *o, unsigned kinds)
{
	uint32_t kept = o->sent > 0, was = o->count;
	for (uint32_t i = kept; i < was; i++) {
		struct message *m = outbox_at(o, i);
		if (!(kinds & 1u << m->kind)) {
			o->ring[(o->head + kept++) & (o->cap - 1)] = m;
			continue;
		}
		uncount(o, m);
		message_unref(m);
	}
	ALWAYS(o->count == kept);
	shrink(o);
	return was - kept;
}

void outbox_done(struct outbox *o)
{
	o->sent = 0;
	(void)outbox_drop(o, KINDS_ALL);
	free_ring(o);
	*o = (struct outbox){0};
}
