#include <errno.h>
#include <string.h>

#include "courier_impl.h"

enum { ACKS_AT_ONCE = 64, LOADS_AT_ONCE = 32 };

/* ---- what the hub asks --------------------------------------------------------------- */

int orders_load(void *arg, const char *subject, int64_t after, uint64_t number)
{
	struct courier *c = arg;
	size_t n = strlen(subject) + 1;
	struct load *l = malloc(sizeof *l + n);
	bool room;

	if (!l)
		return -ENOMEM;
	*l = (struct load){.after = after, .number = number};
	memcpy(l->subject, subject, n);
	pthread_mutex_lock(&c->lock);
	room = c->load_count < COURIER_LOADS_MAX;
	if (room) {
		STAILQ_INSERT_TAIL(&c->loads, l, link);
		c->load_count++;
		pthread_cond_signal(&c->news);
	}
	pthread_mutex_unlock(&c->lock);
	if (!room)
		free(l);
	return room ? 0 : -EAGAIN;
}

static struct ack *ack_new(const struct hub_ack *from)
{
	size_t subject = strlen(from->subject) + 1, op = from->op_id ? strlen(from->op_id) + 1 : 0;
	struct ack *a = malloc(sizeof *a + from->ids * sizeof *from->id + subject + op);

	if (!a)
		return NULL;
	int64_t *id = (int64_t *)(a + 1);
	char *text = (char *)(id + from->ids);
	*a = (struct ack){.ack = *from};
	a->ack.id = memcpy(id, from->id, from->ids * sizeof *id);
	a->ack.subject = memcpy(text, from->subject, subject);
	a->ack.op_id = op ? memcpy(text + subject, from->op_id, op) : NULL;
	return a;
}

int orders_ack(void *arg, const struct hub_ack *ack)
{
	struct courier *c = arg;
	struct ack *a = ack_new(ack);
	bool room;

	ALWAYS(ack->ids > 0 && ack->ids <= COURIER_IDS_MAX);
	if (!a)
		return -ENOMEM;
	a->until_us = clock_us() + COURIER_ACK_MS * UINT64_C(1000);
	pthread_mutex_lock(&c->lock);
	room = c->ack_count < COURIER_ACKS_MAX;
	if (room) {
		STAILQ_INSERT_TAIL(&c->acks, a, link);
		c->ack_count++;
		pthread_cond_signal(&c->news);
	}
	pthread_mutex_unlock(&c->lock);
	if (!room)
		free(a);
	return room ? 0 : -EAGAIN;
}

/* ---- acknowledgements ---------------------------------------------------------------- */

/* The first `most`, or those whose time is over at `now_us` (0: whatever their time). */
static void detach_acks(struct courier *c, struct acks *to, size_t most, uint64_t now_us)
{
	struct ack *a;

	STAILQ_INIT(to);
	pthread_mutex_lock(&c->lock);
	while (most-- > 0 && (a = STAILQ_FIRST(&c->acks)) && (!now_us || a->until_us <= now_us)) {
		STAILQ_REMOVE_HEAD(&c->acks, link);
		STAILQ_INSERT_TAIL(to, a, link);
		c->ack_count--;
	}
	pthread_mutex_unlock(&c->lock);
}

static void answer_acks(struct courier *c, struct acks *acks, bool done)
{
	struct ack *a;

	while ((a = STAILQ_FIRST(acks))) {
		STAILQ_REMOVE_HEAD(acks, link);
		if (!done)
			COURIER_COUNT(c, failed_acks, 1);
		hub_acked(c->hub, &a->ack, done);
		free(a);
	}
}

static void put_back_acks(struct courier *c, struct acks *acks)
{
	const struct ack *a;

	pthread_mutex_lock(&c->lock);
	STAILQ_FOREACH (a, acks, link)
		c->ack_count++;
	STAILQ_CONCAT(acks, &c->acks);
	STAILQ_CONCAT(&c->acks, acks);
	pthread_mutex_unlock(&c->lock);
}

/* To delete once more what may have been deleted is harmless, so a connection that was lost has it
 * tried again, until its time is over. */
int orders_serve_acks(struct courier *c)
{
	uint64_t deleted = 0;
	struct acks acks;
	int r;

	detach_acks(c, &acks, ACKS_AT_ONCE, 0);
	if (STAILQ_EMPTY(&acks))
		return 0;
	r = outbox_acknowledge(c, &acks, &deleted);
	if (r == 0 || r == -ENOENT || r == -EACCES) {
		COURIER_COUNT(c, acknowledged, deleted);
		answer_acks(c, &acks, r == 0);
	} else {
		put_back_acks(c, &acks);
	}
	return r;
}

/* ---- loads --------------------------------------------------------------------------- */

static void detach_loads(struct courier *c, struct loads *to)
{
	struct load *l;

	STAILQ_INIT(to);
	pthread_mutex_lock(&c->lock);
	for (size_t n = 0; n < LOADS_AT_ONCE && (l = STAILQ_FIRST(&c->loads)); n++) {
		STAILQ_REMOVE_HEAD(&c->loads, link);
		STAILQ_INSERT_TAIL(to, l, link);
		c->load_count--;
	}
	pthread_mutex_unlock(&c->lock);
}

static void put_back_loads(struct courier *c, struct loads *loads)
{
	const struct load *l;

	pthread_mutex_lock(&c->lock);
	STAILQ_FOREACH (l, loads, link)
		c->load_count++;
	STAILQ_CONCAT(loads, &c->loads);
	STAILQ_CONCAT(&c->loads, loads);
	pthread_mutex_unlock(&c->lock);
}

int orders_serve_loads(struct courier *c)
{
	struct loads loads;
	int r = 0;

	detach_loads(c, &loads);
	if (!STAILQ_EMPTY(&loads))
		r = outbox_load(c, &loads);
	put_back_loads(c, &loads);
	return r;
}

/* ---- the end ------------------------------------------------------------------------- */

void orders_expire(struct courier *c, uint64_t now_us)
{
	struct acks acks;

	detach_acks(c, &acks, COURIER_ACKS_MAX, now_us);
	answer_acks(c, &acks, false);
}

void orders_done(struct courier *c)
{
	struct load *l;
	struct ack *a;

	while ((l = STAILQ_FIRST(&c->loads))) {
		STAILQ_REMOVE_HEAD(&c->loads, link);
		free(l);
	}
	while ((a = STAILQ_FIRST(&c->acks))) {
		STAILQ_REMOVE_HEAD(&c->acks, link);
		free(a);
	}
}
