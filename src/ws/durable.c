#include "durable.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "ops.h"

/*
 * What is for a user lies in the database until it is acknowledged; here is only which of the
 * user's clients has been told how much. A client is one of:
 *
 * OWED: it is to be told what is kept, above its cursor, as soon as there is room for it: at its
 * hello, after a gap, when something of it was dropped. What comes meanwhile is kept, and so not
 * for it to be told now, but for what is below the cursor.
 *
 * LOADING: that was asked for. What comes meanwhile may or may not be among it: it is held back.
 *
 * MORE: it was told a page, up to its cursor; the next comes when some of it was acknowledged, or
 * after a while. Of what comes only that below the cursor is told.
 *
 * CURRENT: it was told all: what comes is told at once.
 *
 * Ids are in the order in which they were given out, not in that of the commits: one below the
 * cursor may still come, by the stream alone. And what was among a page may come by the stream
 * behind it: for a time it is remembered which ids were in which page.
 */

enum {
	HELD_MAX = 256, /* of a user */
	MISSED_MAX = 4096,
	HELD_BYTES_MAX = 1 << 20,
	HELD_BYTES_ALL = 16 << 20,
	TOLD_MAX = 4096, /* ids, of a user */
	TOLD_MS = 30000, /* for the stream to bring what was loaded */
	MORE_MS = 10000, /* to the next page, without an acknowledgement */
	IDS_MAX = 256,
};
#define ID_MAX (INT64_C(1) << 53)

/* ---- asking -------------------------------------------------------------------------- */

/* Who had no room for what a page had is asked for again when nothing waits: it then has room for
 * at least one. Before that the same page might be asked for over and over, in vain. */
static bool may_load(const struct hub *h, const struct client *c)
{
	size_t most = c->was_full ? 0 : (size_t)h->options.backlog / 2;

	return c->durable == DURABLE_OWED && c->state == CLIENT_OPEN && !c->resync_waits &&
	       c->out.bytes <= most;
}

/* For all of the user's clients that may be told; one page is for all. */
static void ask(struct hub *h, struct user *u)
{
	struct client *c;
	int64_t after = INT64_MAX;
	bool any = false;

	if (u->load)
		return;
	TAILQ_FOREACH (c, &u->everyone, of_subject) {
		if (!may_load(h, c))
			continue;
		any = true;
		after = MIN(after, c->cursor);
	}
	if (!any)
		return;
	uint64_t number = ++h->load_number;
	if (h->keeper.load(h->keeper.arg, u->subject, after, number) < 0) {
		h->asks_wait = true;
		return;
	}
	u->load = number;
	TAILQ_FOREACH (c, &u->everyone, of_subject) {
		if (!may_load(h, c))
			continue;
		c->durable = DURABLE_LOADING;
		c->was_full = false;
		memmove(c->load + 1, c->load, sizeof c->load - sizeof *c->load);
		c->load[0] = number;
	}
}

static void owe(struct client *c, int64_t cursor)
{
	c->durable = DURABLE_OWED;
	c->cursor = cursor;
}

void durable_owe(struct hub *h, struct client *c)
{
	if (!c->user || c->state != CLIENT_OPEN)
		return;
	if (!h->keeper.load) {
		c->durable = DURABLE_CURRENT;
		return;
	}
	owe(c, 0);
	ask(h, c->user);
}

void durable_room(struct hub *h, struct client *c)
{
	if (c->user && may_load(h, c))
		ask(h, c->user);
}

/* ---- what was told by pages ---------------------------------------------------------- */

struct told {
	uint64_t load;
	int64_t id;
};

static void forget(struct hub *h, struct user *u)
{
	if (!u->told)
		return;
	TAILQ_REMOVE(&h->telling, u, telling);
	free(u->told);
	u->told = NULL;
	u->tolds = 0;
}

/* In the order of loads, then of ids. Without memory something may be told twice. */
static void remember(struct hub *h, struct user *u, const struct hub_kept *k)
{
	if (k->rows == 0)
		return;
	if (u->tolds + k->rows > TOLD_MAX)
		forget(h, u);
	struct told *grown = realloc(u->told, (u->tolds + k->rows) * sizeof *grown);
	if (!grown)
		return;
	if (u->told)
		TAILQ_REMOVE(&h->telling, u, telling);
	u->told = grown;
	for (size_t i = 0; i < k->rows; i++)
		u->told[u->tolds++] = (struct told){k->number, k->row[i].id};
	u->told_ms = h->now_ms;
	TAILQ_INSERT_TAIL(&h->telling, u, telling);
}

static int compare(const void *a, const void *b)
{
	const struct told *x = a, *y = b;

	if (x->load != y->load)
		return x->load < y->load ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static bool was_told(const struct user *u, const struct client *c, int64_t id)
{
	for (size_t i = 0; u->told && i < LOADS_KEPT; i++) {
		const struct told key = {c->load[i], id};
		if (bsearch(&key, u->told, u->tolds, sizeof key, compare))
			return true;
	}
	return false;
}

/* ---- telling ------------------------------------------------------------------------- */

static struct message *event_message(struct hub *h, const char *room, int64_t id, const char *name,
                                     const char *data, size_t n, bool durable)
{
	uint64_t seq = ++h->seq;
	struct buf *b = ops_begin(h, "event");

	ops_add_text(b, "room", room, strlen(room));
	ops_add_text(b, "name", name, strlen(name));
	buf_adds(b, ",\"data\":");
	buf_add(b, data, n);
	buf_addf(b, ",\"seq\":%llu", (unsigned long long)seq);
	if (durable)
		buf_addf(b, ",\"nid\":%lld", (long long)id);
	struct message *m = ops_message(h, MESSAGE_EVENT);
	if (m)
		m->seq = seq;
	return m;
}

static struct message *of_user(struct hub *h, const struct user *u, int64_t id, const char *name,
                               const char *data, size_t n)
{
	char room[sizeof "user:" + IDENTITY_SUBJECT_MAX];

	snprintf(room, sizeof room, "user:%s", u->subject);
	return event_message(h, room, id, name, data, n, true);
}

/* Behind a resync, too: it is not about what is kept. False: there is no room for it now. What is
 * larger than the backlog goes when nothing waits. */
static bool put(struct hub *h, struct client *c, struct message *m)
{
	if (!m)
		return false;
	if (c->out.bytes > 0 && (c->out.bytes + m->size > (size_t)h->options.backlog ||
	                         c->out.count - c->out.data >= BACKLOG_MESSAGES))
		return false;
	client_put(h, c, message_ref(m));
	COUNT(h, durable, 1);
	return true;
}

static void done_with(struct message *m)
{
	if (m)
		message_unref(m);
}

/* Whoever could not be told is owed it. */
static void retry_soon(struct hub *h, struct client *c, int64_t cursor)
{
	owe(c, cursor);
	c->was_full = true;
	h->asks_wait = true;
}

static bool is_for_now(const struct user *u, const struct client *c, int64_t id)
{
	if (c->state != CLIENT_OPEN || was_told(u, c, id))
		return false;
	if (c->durable == DURABLE_CURRENT)
		return true;
	return (c->durable == DURABLE_MORE || c->durable == DURABLE_OWED) && id <= c->cursor;
}

/* ---- holding back -------------------------------------------------------------------- */

static void drop_held(struct hub *h, struct user *u)
{
	struct mail *m;

	while ((m = STAILQ_FIRST(&u->held))) {
		STAILQ_REMOVE_HEAD(&u->held, link);
		h->held_bytes -= m->size;
		hub_mail_free(m);
	}
	u->held_count = u->held_bytes = 0;
	free(u->missed);
	u->missed = NULL;
	u->misses = 0;
}

/* Only its id: the page has it, or else another is asked for, for it is kept. */
static void miss(struct user *u, int64_t id)
{
	if (u->misses % HELD_MAX == 0 && u->misses < MISSED_MAX) {
		int64_t *grown = realloc(u->missed, (u->misses + HELD_MAX) * sizeof *grown);
		u->again |= !grown;
		if (grown)
			u->missed = grown;
	}
	u->again |= u->misses >= MISSED_MAX;
	if (!u->again)
		u->missed[u->misses++] = id;
}

static void hold(struct hub *h, struct user *u, struct mail *m)
{
	if (u->misses > 0 || u->again || u->held_count >= HELD_MAX ||
	    u->held_bytes + m->size > HELD_BYTES_MAX || h->held_bytes + m->size > HELD_BYTES_ALL) {
		miss(u, m->event.id);
		hub_mail_free(m);
		return;
	}
	STAILQ_INSERT_TAIL(&u->held, m, link);
	u->held_count++;
	u->held_bytes += m->size;
	h->held_bytes += m->size;
}

static bool is_among(const struct hub_kept *k, int64_t id)
{
	size_t low = 0, high = k->rows;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (k->row[mid].id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low < k->rows && k->row[low].id == id;
}

static bool is_loading(const struct client *c, const struct hub_kept *k)
{
	return c->durable == DURABLE_LOADING && c->load[0] == k->number && c->state == CLIENT_OPEN;
}

/* Whether what came while the page was under way is for the client now. What is beyond what it was
 * told of the page, or before it, the next has. */
static bool is_released(const struct user *u, const struct client *c, const struct hub_kept *k,
                        int64_t last, int64_t id)
{
	if (c->load[0] != k->number || c->state != CLIENT_OPEN || was_told(u, c, id))
		return false;
	return (c->durable == DURABLE_LOADING && id <= MAX(last, c->cursor)) ||
	       (c->durable == DURABLE_OWED && id <= c->cursor);
}

static void release(struct hub *h, struct user *u, const struct hub_kept *k)
{
	const int64_t last = k->more ? k->row[k->rows - 1].id : INT64_MAX;
	const struct mail *held;
	struct client *c;

	STAILQ_FOREACH (held, &u->held, link) {
		const struct hub_event *e = &held->event;
		struct message *m = NULL;
		if (is_among(k, e->id))
			continue;
		TAILQ_FOREACH (c, &u->everyone, of_subject) {
			if (!is_released(u, c, k, last, e->id))
				continue;
			if (!m)
				m = of_user(h, u, e->id, e->name, e->data, e->data_len);
			if (!put(h, c, m))
				retry_soon(h, c, 0);
		}
		done_with(m);
	}
}

/* ---- a page -------------------------------------------------------------------------- */

static void tell_row(struct hub *h, struct user *u, const struct hub_kept *k,
                     const struct hub_row *row)
{
	struct message *m = of_user(h, u, row->id, row->name, row->data, row->data_len);
	struct client *c;

	TAILQ_FOREACH (c, &u->everyone, of_subject) {
		if (!is_loading(c, k) || row->id <= c->cursor)
			continue;
		if (put(h, c, m))
			c->cursor = row->id;
		else
			retry_soon(h, c, c->cursor);
	}
	done_with(m);
}

/* Above which id what the client missed is to be loaded; INT64_MAX: it missed nothing. */
static int64_t missed_above(const struct user *u, const struct client *c, const struct hub_kept *k)
{
	int64_t above = u->again ? 0 : INT64_MAX;

	for (size_t i = 0; i < u->misses; i++)
		if (u->missed[i] <= above && !is_among(k, u->missed[i]) &&
		    !was_told(u, c, u->missed[i]))
			above = MIN(above, u->missed[i] - 1);
	return above;
}

static void settle(struct hub *h, struct user *u, const struct hub_kept *k)
{
	struct client *c;

	TAILQ_FOREACH (c, &u->everyone, of_subject) {
		if (c->load[0] != k->number)
			continue;
		int64_t above = missed_above(u, c, k);
		/* Who was told a part of the page. */
		if (c->durable == DURABLE_OWED)
			owe(c, MIN(above, c->cursor));
		if (!is_loading(c, k))
			continue;
		/* What is past this page comes with the next. */
		if (above < c->cursor || (above < INT64_MAX && !k->more))
			owe(c, MIN(above, c->cursor));
		else if (!k->more)
			c->durable = DURABLE_CURRENT;
		else {
			c->durable = DURABLE_MORE;
			if (!h->more_ms)
				h->more_ms = h->now_ms + MORE_MS;
		}
	}
	u->again = false;
	drop_held(h, u);
}

static struct user *find(const struct hub *h, const char *subject)
{
	return (struct user *)names_find(&h->users, subject, strlen(subject));
}

void durable_kept(struct hub *h, const struct hub_kept *k)
{
	struct user *u = find(h, k->subject);

	/* An answer to somebody who has left is older than what whoever came since has asked. */
	if (!u || u->load != k->number)
		return;
	u->load = 0;
	remember(h, u, k);
	for (size_t i = 0; i < k->rows; i++)
		tell_row(h, u, k, &k->row[i]);
	release(h, u, k);
	settle(h, u, k);
	ask(h, u);
}

/* ---- what comes ---------------------------------------------------------------------- */

/* To each of the user's clients, in the user's room or not. */
static void tell_user(struct hub *h, struct mail *m)
{
	const struct hub_event *e = &m->event;
	struct user *u = find(h, e->room + strlen("user:"));
	struct message *message = NULL;
	struct client *c;
	bool held = false;

	if (u) {
		TAILQ_FOREACH (c, &u->everyone, of_subject) {
			held |= c->durable == DURABLE_LOADING;
			if (!is_for_now(u, c, e->id))
				continue;
			if (!message)
				message = of_user(h, u, e->id, e->name, e->data, e->data_len);
			if (!put(h, c, message))
				retry_soon(h, c, 0);
		}
	}
	done_with(message);
	if (held)
		hold(h, u, m);
	else
		hub_mail_free(m);
}

static void tell_room(struct hub *h, const struct hub_event *e)
{
	char name[HUB_ROOM_MAX + 1];
	size_t n;
	const struct room *r = NULL;

	if (room_normalise(e->room, strlen(e->room), name, &n) == 0)
		r = room_find(h, name, n);
	if (!r)
		return;
	struct message *m = event_message(h, name, e->id, e->name, e->data, e->data_len, false);
	if (m)
		events_tell(h, r, m);
	else
		events_resync(h);
}

void durable_event(struct hub *h, struct mail *m)
{
	if (m->event.durable) {
		tell_user(h, m);
		return;
	}
	tell_room(h, &m->event);
	hub_mail_free(m);
}

/* ---- acknowledging ------------------------------------------------------------------- */

/* False: not 1 to IDS_MAX of our ids. */
static bool read_ids(const struct op *o, int64_t id[IDS_MAX], size_t *ret_n)
{
	struct json_object *ids;

	if (!json_object_object_get_ex(o->root, "ids", &ids) ||
	    !json_object_is_type(ids, json_type_array))
		return false;
	size_t n = json_object_array_length(ids);
	if (n < 1 || n > IDS_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct json_object *v = json_object_array_get_idx(ids, i);
		if (!json_object_is_type(v, json_type_int))
			return false;
		id[i] = json_object_get_int64(v);
		if (id[i] < 1 || id[i] > ID_MAX)
			return false;
	}
	*ret_n = n;
	return true;
}

static const char NOT_NOW[] = "this could not be committed now; acknowledge it again";

void op_ack(const struct op *o)
{
	int64_t id[IDS_MAX];
	size_t n;

	if (!read_ids(o, id, &n)) {
		op_error(o, WS_CODE_BAD_REQUEST, "ids must be 1 to 256 numbers of events");
		return;
	}
	const struct hub_ack a = {o->c->user->subject, o->c->number, o->id, id, n};
	if (!o->h->keeper.ack || o->h->keeper.ack(o->h->keeper.arg, &a) < 0)
		op_error(o, WS_CODE_UNAVAILABLE, NOT_NOW);
}

static void go_on(struct hub *h, struct user *u)
{
	struct client *c;

	TAILQ_FOREACH (c, &u->everyone, of_subject)
		if (c->durable == DURABLE_MORE)
			owe(c, c->cursor);
	ask(h, u);
}

void durable_acked(struct hub *h, const struct hub_ack *a, bool done)
{
	struct user *u = find(h, a->subject);
	struct client *c;

	if (!u)
		return;
	if (done)
		go_on(h, u);
	TAILQ_FOREACH (c, &u->everyone, of_subject)
		if (c->number == a->client)
			break;
	if (!c)
		return;
	const struct op o = {.h = h, .c = c, .id = a->op_id};
	if (done)
		op_ok_end(&o, op_ok(&o));
	else
		op_error(&o, WS_CODE_UNAVAILABLE, NOT_NOW);
}

/* ---- time ---------------------------------------------------------------------------- */

void durable_look_after(struct hub *h)
{
	struct client *c;
	struct user *u;
	bool more = h->more_ms && h->now_ms >= h->more_ms;

	while ((u = TAILQ_FIRST(&h->telling)) && u->told_ms + TOLD_MS <= h->now_ms)
		forget(h, u);
	if (!more && !h->asks_wait)
		return;
	h->asks_wait = false;
	if (more)
		h->more_ms = 0;
	TAILQ_FOREACH (c, &h->clients, link) {
		if (more && c->durable == DURABLE_MORE)
			owe(c, c->cursor);
		durable_room(h, c);
	}
}

void durable_user_done(struct hub *h, struct user *u)
{
	drop_held(h, u);
	forget(h, u);
}
