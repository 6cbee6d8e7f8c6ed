#include <sodium.h>
#include <string.h>

#include "hub_impl.h"

/* ---- sessions ------------------------------------------------------------------------ */

struct session *session_new(struct hub *h, struct client *c)
{
	unsigned char bytes[SESSION_ID_LEN / 2];
	struct session *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	_Static_assert(offsetof(struct session, node) == 0, "a node is its session");
	randombytes_buf(bytes, sizeof bytes);
	sodium_bin2hex(s->id, sizeof s->id, bytes, sizeof bytes);
	s->client = c;
	s->identity = identity_ref(c->identity);
	names_add(&h->sessions, &s->node, s->id, SESSION_ID_LEN);
	return s;
}

static void stop_waiting(struct hub *h, struct session *s)
{
	if (s->client || !s->until_ms)
		return;
	/* It was counted when it began to wait. */
	struct user *u = (struct user *)names_find(&h->users, s->identity->subject,
	                                           strlen(s->identity->subject));
	TAILQ_REMOVE(&h->left, s, left);
	TAILQ_REMOVE(&u->left, s, of_user);
	COUNT(h, sessions, -1);
	s->until_ms = 0;
	u->waiting--;
	user_put(h, u);
}

void session_free(struct hub *h, struct session *s)
{
	stop_waiting(h, s);
	while (s->members > 0)
		member_free(h, s->member[s->members - 1]);
	free(s->member);
	names_remove(&h->sessions, &s->node);
	identity_unref(&s->identity);
	free(s);
}

/* As many may wait as could be connected; whoever leaves much makes room for its own. */
static void make_room(struct hub *h, struct user *u)
{
	if (u->waiting > SESSIONS_PER_USER)
		session_free(h, TAILQ_FIRST(&u->left));
	if (atomic_load_explicit(&h->figures.sessions, memory_order_relaxed) >
	    h->options.max_clients)
		session_free(h, TAILQ_FIRST(&h->left));
}

void session_leave(struct hub *h, struct session *s)
{
	bool keep = s->members > 0 && h->options.resume_window_ms > 0;
	struct user *u = keep ? user_get(h, s->identity->subject) : NULL;
	if (!u) {
		session_free(h, s);
		return;
	}
	s->client = NULL;
	s->until_ms = h->now_ms + (uint64_t)h->options.resume_window_ms;
	TAILQ_INSERT_TAIL(&h->left, s, left);
	TAILQ_INSERT_TAIL(&u->left, s, of_user);
	u->waiting++;
	COUNT(h, sessions, 1);
	make_room(h, u);
}

void sessions_expire(struct hub *h)
{
	struct session *s;
	while ((s = TAILQ_FIRST(&h->left)) && s->until_ms <= h->now_ms)
		session_free(h, s);
}

/* The rooms change hands. In those that the client has joined already it was told all from then on,
 * and misses what came before that. */
static void take_rooms(struct hub *h, struct session *to, struct session *from)
{
	for (uint32_t i = 0; i < from->members; i++) {
		const struct member *m = from->member[i];
		const struct room *r = m->room;
		if (!room_permits(h, r->name, r->len, to->identity) ||
		    room_join(h, to, r->name, r->len) < 0)
			continue;
		struct member *own = room_member(to, r);
		own->since = MIN(own->since, m->since);
	}
}

bool session_take(struct hub *h, struct client *c, const char *id)
{
	struct session *s = (struct session *)names_find(&h->sessions, id, strlen(id));
	if (!s || s == c->session || strcmp(s->identity->subject, c->identity->subject))
		return false;
	take_rooms(h, c->session, s);
	/* A socket that has not been found dead yet, most likely. */
	if (s->client) {
		struct client *was = s->client;
		was->session = NULL;
		client_close(h, was, WS_CODE_REPLACED, "resumed by another connection");
	}
	session_free(h, s);
	COUNT(h, resumed, 1);
	return true;
}

/* ---- history ------------------------------------------------------------------------- */

static struct history_entry *entry_at(const struct hub *h, size_t i)
{
	return &h->history[(h->history_head + i) % HISTORY_MESSAGES];
}

static void drop_first(struct hub *h)
{
	struct message *m = entry_at(h, 0)->message;
	h->history_floor = MAX(h->history_floor, m->seq);
	h->history_bytes -= m->size;
	h->history_head = (h->history_head + 1) % HISTORY_MESSAGES;
	h->history_count--;
	message_unref(m);
}

void history_add(struct hub *h, struct message *m)
{
	if (h->options.resume_window_ms == 0) {
		h->history_floor = m->seq;
		return;
	}
	while (h->history_count > 0 &&
	       (h->history_count == HISTORY_MESSAGES || h->history_bytes + m->size > HISTORY_BYTES))
		drop_first(h);
	*entry_at(h, h->history_count++) = (struct history_entry){message_ref(m), h->now_ms};
	h->history_bytes += m->size;
}

void history_forget(struct hub *h)
{
	while (h->history_count > 0)
		drop_first(h);
	h->history_floor = ++h->seq;
}

void history_expire(struct hub *h)
{
	uint64_t window = (uint64_t)h->options.resume_window_ms;
	while (h->history_count > 0 && entry_at(h, 0)->at_ms + window <= h->now_ms)
		drop_first(h);
}

/* The first entry past `seq`. */
static size_t find_past(const struct hub *h, uint64_t seq)
{
	size_t low = 0, high = h->history_count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (entry_at(h, mid)->message->seq <= seq)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int by_room(const void *a, const void *b)
{
	uint64_t x = (*(struct member *const *)a)->room->id;
	uint64_t y = (*(struct member *const *)b)->room->id;
	return x < y ? -1 : x > y;
}

static const struct member *member_of(const struct session *s, uint64_t room)
{
	uint32_t low = 0, high = s->members;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		if (s->member[mid]->room->id < room)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->members && s->member[low]->room->id == room ? s->member[low] : NULL;
}

bool history_tell(struct hub *h, struct client *c, uint64_t seq)
{
	struct session *s = c->session;
	if (seq < h->history_floor || seq > h->seq)
		return false;
	if (s->members > 1)
		qsort(s->member, s->members, sizeof(struct member *), by_room);
	for (size_t i = find_past(h, seq); i < h->history_count; i++) {
		struct message *m = entry_at(h, i)->message;
		const struct member *member = member_of(s, m->room);
		if (member && m->seq > member->since && m->seq <= member->joined)
			client_event(h, c, m);
	}
	return true;
}
