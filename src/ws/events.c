#include <string.h>

#include "hub_impl.h"

/* Each of three steps leads to memory that is not in the cache when there are many. */
static void look_ahead(const struct room *r, uint32_t i)
{
	if (i + 12 < r->members)
		__builtin_prefetch(r->member[i + 12]);
	if (i + 8 < r->members)
		__builtin_prefetch(&r->member[i + 8]->session->client);
	const struct client *c = i + 4 < r->members ? r->member[i + 4]->session->client : NULL;
	if (c) {
		__builtin_prefetch(c, 1);
		__builtin_prefetch((const char *)c + 64, 1);
	}
}

/* `at_once`: nothing else is to be told now, so each is sent it while it is at hand; a second walk
 * over all of them would find it gone from the cache. */
static void fan_out(struct hub *h, const struct room *r, struct message *m, bool at_once)
{
	for (uint32_t i = 0; i < r->members; i++) {
		look_ahead(r, i);
		struct client *c = r->member[i]->session->client;
		if (!c)
			continue;
		client_event(h, c, m);
		if (at_once)
			client_send_now(h, c);
	}
}

static void add_keys(struct buf *b, const struct hub_change *c)
{
	for (size_t i = 0; i < c->keys; i++) {
		buf_addc(b, i ? ',' : '[');
		buf_add_json_string(b, c->key[i], strlen(c->key[i]));
	}
	buf_adds(b, c->keys ? "]" : "[]");
}

static void tell(struct hub *h, const struct room *r, struct message *m, bool at_once)
{
	m->room = r->id;
	COUNT(h, events, 1);
	fan_out(h, r, m, at_once);
	history_add(h, m);
	message_unref(m);
}

void events_tell(struct hub *h, const struct room *r, struct message *m)
{
	COUNT(h, published, 1);
	tell(h, r, m, h->alone);
}

/* Out of memory, those in the room are told to look at everything. */
static void publish(struct hub *h, const struct room *r, const struct hub_change *c, bool at_once)
{
	struct buf *b = &h->text;
	uint64_t seq = ++h->seq;
	b->len = 0;
	b->failed = false;
	buf_adds(b, "{\"ev\":\"change\",\"room\":");
	buf_add_json_string(b, r->name, r->len);
	buf_adds(b, ",\"table\":");
	buf_add_json_string(b, c->table, strlen(c->table));
	buf_addf(b, ",\"op\":\"%s\",\"keys\":", c->op);
	if (c->known)
		add_keys(b, c);
	else
		buf_adds(b, "null");
	buf_addf(b, ",\"seq\":%llu", (unsigned long long)seq);
	struct message *m = ops_message(h, MESSAGE_EVENT);
	if (!m) {
		events_resync(h);
		return;
	}
	m->seq = seq;
	tell(h, r, m, at_once);
}

/* ---- changes ------------------------------------------------------------------------- */

struct rows {
	struct hub *h;
	const struct hub_change *change;
	char prefix[HUB_ROOM_MAX + 2];
	size_t n;
};

static void publish_row(void *arg, struct names_node *node)
{
	const struct rows *x = arg;
	const struct room *r = (const struct room *)node;
	if (r->len > x->n && !memcmp(r->name, x->prefix, x->n))
		publish(x->h, r, x->change, false);
}

static size_t name_of(char out[HUB_ROOM_MAX + 2], const char *table, const char *key)
{
	int n =
	    snprintf(out, HUB_ROOM_MAX + 2, "table:%s%s%s", table, key ? ":" : "", key ? key : "");
	return n > 0 && n <= HUB_ROOM_MAX ? (size_t)n : 0;
}

static const struct room *find(const struct hub *h, const struct hub_change *c, const char *key)
{
	char name[HUB_ROOM_MAX + 2];
	size_t n = name_of(name, c->table, key);
	return n > 0 ? room_find(h, name, n) : NULL;
}

/* Whether some are in a room of one of its rows. */
static bool has_rows(const struct hub *h, const struct hub_change *c)
{
	for (size_t i = 0; c->known && i < c->keys; i++)
		if (find(h, c, c->key[i]))
			return true;
	return !c->known;
}

void events_change(struct hub *h, const struct hub_change *c)
{
	struct rows x = {.h = h, .change = c};
	const struct room *r = find(h, c, NULL);
	if (r)
		publish(h, r, c, h->alone && !has_rows(h, c));
	if (!c->known && (x.n = name_of(x.prefix, c->table, "")) > 0)
		names_each(&h->rooms, publish_row, &x);
	for (size_t i = 0; c->known && i < c->keys; i++)
		if ((r = find(h, c, c->key[i])))
			publish(h, r, c, false);
}

/* ---- gaps ---------------------------------------------------------------------------- */

/* Whatever a room is of, its events come by the stream that had the gap. Nobody who resumes can be
 * told any more what there was. */
void events_resync(struct hub *h)
{
	struct client *c;
	history_forget(h);
	TAILQ_FOREACH (c, &h->clients, link) {
		if (c->state == CLIENT_OPEN && c->session &&
		    (c->session->members > 0 || c->watched > 0))
			ops_resync(h, c);
		durable_owe(h, c);
	}
}
