#include "http_impl.h"
#include "provost/buf.h"
#include "provost/courier.h"
#include "provost/hub.h"

static void put(struct buf *b, const char *name, uint64_t n)
{
	buf_addf(b, "%s\"%s\":%llu", b->data[b->len - 1] == '{' ? "" : ",", name,
	         (unsigned long long)n);
}

static void put_closes(struct buf *b, const struct hub_stats *s)
{
	char name[16];
	buf_adds(b, ",\"closes\":{");
	for (size_t i = 0; i < HUB_CODES; i++) {
		if (s->closed[i].count == 0)
			continue;
		snprintf(name, sizeof name, "%u", s->closed[i].code);
		put(b, s->closed[i].code ? name : "other", s->closed[i].count);
	}
	buf_addc(b, '}');
}

/* What a send carried, on the average of all: 1 while the hub idles, more under load. */
static void put_batch(struct buf *b, const struct hub_stats *s)
{
	double mean = s->sends ? (double)s->messages_out / (double)s->sends : 0;
	buf_addf(b, ",\"batch\":{\"ticks\":%llu,\"sends\":%llu,\"mean\":%.2f,\"max\":%llu}",
	         (unsigned long long)s->ticks, (unsigned long long)s->sends, mean,
	         (unsigned long long)s->batch_max);
}

/* Paths that are watched. */
static void put_live(struct buf *b, const struct hub_stats *s)
{
	buf_adds(b, ",\"live\":{");
	put(b, "subscriptions", s->subscriptions);
	put(b, "paths", s->paths);
	put(b, "bodyBytes", s->body_bytes);
	put(b, "outdatedBytes", s->passed_bytes);
	put(b, "reading", s->reading);
	put(b, "waiting", s->waiting);
	put(b, "firstReads", s->first_reads);
	put(b, "refreshes", s->refreshes);
	put(b, "unchanged", s->unchanged);
	put(b, "failed", s->failed_reads);
	put(b, "bodies", s->bodies);
	put(b, "postponed", s->postponed);
	buf_adds(b, ",\"sweeps\":{");
	put(b, "count", s->sweeps);
	put(b, "lastMicroseconds", s->sweep_us);
	put(b, "maxMicroseconds", s->sweep_us_max);
	buf_adds(b, "}}");
}

/* What SQL publishes. */
static void put_published(struct buf *b, const struct hub_stats *s, const struct courier_stats *c)
{
	buf_adds(b, ",\"published\":{");
	put(b, "events", c->events);
	put(b, "references", c->references);
	put(b, "forged", c->forged);
	put(b, "lost", c->lost);
	put(b, "waiting", c->waiting);
	put(b, "told", s->published);
	buf_addf(b, ",\"connected\":%s", c->connected ? "true" : "false");
	buf_adds(b, "},\"outbox\":{");
	put(b, "told", s->durable);
	put(b, "loads", c->loads);
	put(b, "loaded", c->rows);
	put(b, "acknowledged", c->acknowledged);
	put(b, "failed", c->failed_acks);
	put(b, "purged", c->purged);
	put(b, "kept", c->kept);
	buf_addc(b, '}');
}

static void render(struct buf *b, const struct hub_stats *s, const struct courier_stats *c)
{
	buf_addc(b, '{');
	put(b, "connectedClients", s->clients);
	put(b, "unidentified", s->unidentified);
	put(b, "activeUsers", s->users);
	put(b, "rooms", s->rooms);
	put(b, "memberships", s->memberships);
	put(b, "resumable", s->sessions);
	put(b, "accepted", s->adopted);
	put(b, "events", s->events);
	buf_adds(b, ",\"messages\":{");
	put(b, "sent", s->messages_out);
	put(b, "received", s->messages_in);
	put(b, "dropped", s->dropped);
	buf_adds(b, "},\"bytes\":{");
	put(b, "sent", s->bytes_out);
	put(b, "received", s->bytes_in);
	buf_addc(b, '}');
	put_batch(b, s);
	put(b, "resyncs", s->resyncs);
	put(b, "resumed", s->resumed);
	put(b, "stalls", s->stalls);
	put(b, "lostMail", s->lost_mail);
	put_live(b, s);
	put_published(b, s, c);
	put_closes(b, s);
	buf_addc(b, '}');
}

enum MHD_Result sockets_report(struct request *q)
{
	_cleanup_buf_ struct buf b = {0};
	struct hub_stats s;
	struct courier_stats c = {0};
	size_t len;
	hub_stats(http_of(q)->hub, &s);
	courier_stats(http_of(q)->courier, &c);
	if (buf_reserve(&b, 2048))
		render(&b, &s, &c);
	char *text = buf_take(&b, &len);
	if (!text)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	return respond_json(q, 200, text, len, free, text);
}
