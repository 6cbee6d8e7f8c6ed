#include <errno.h>

#include "conn_impl.h"

static int lost(struct conn *c)
{
	c->broken = true;
	return -ECONNRESET;
}

int conn_send(struct conn *c, const char *sql, const char *const *values, unsigned n)
{
	int r = pipeline_room(c, 2);
	if (r == 0)
		r = pipeline_sent(
		    c, PQsendQueryParams(c->pg, sql, (int)n, NULL, values, NULL, NULL, 0), NULL,
		    EXPECT_RESULT, 0);
	if (r == 0)
		r = pipeline_sent(c, PQpipelineSync(c->pg), NULL, EXPECT_SYNC, 0);
	if (r < 0)
		return lost(c);
	return PQflush(c->pg) < 0 ? lost(c) : 0;
}

static void hand_over(struct conn *c, struct notify_sink *sink)
{
	PGnotify *n;

	while ((n = PQnotifies(c->pg))) {
		sink->notified(sink, n->relname, n->extra, n->be_pid == PQbackendPID(c->pg));
		PQfreemem(n);
	}
}

int conn_receive(struct conn *c, struct notify_sink *sink)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	if (c->broken || PQflush(c->pg) < 0)
		return lost(c);
	bool alive = PQconsumeInput(c->pg);
	c->refused = false;
	int r;
	while ((r = pipeline_take(c)) == 1)
		;
	if (r == 0 && c->refused)
		r = -EIO;
	/* Also of a connection that has ended: what was told was committed. */
	hand_over(c, sink);
	return alive ? r : lost(c);
}

unsigned conn_outstanding(const struct conn *c)
{
	unsigned n = 0;
	for (size_t i = c->next; i < c->expecteds; i++)
		n += c->expected[i].kind == EXPECT_SYNC;
	return n;
}
