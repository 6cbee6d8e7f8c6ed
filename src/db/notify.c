#include <errno.h>

#include "conn_impl.h"

static int lost(struct conn *c)
{
	c->broken = true;
	return -ECONNRESET;
}

int conn_send(struct conn *c, const char *sql, const char *const *values, unsigned n)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	if (!PQsendQueryParams(c->pg, sql, (int)n, NULL, values, NULL, NULL, 0) ||
	    !PQpipelineSync(c->pg))
		return lost(c);
	c->texts++;
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

/* Takes the results that are complete. A NULL ends each command; two in a row mean that libpq and
 * we disagree about what is outstanding. */
static int take_results(struct conn *c)
{
	bool ended = false;
	int r = 0;

	while (c->texts > 0 && !PQisBusy(c->pg)) {
		PGresult *result = PQgetResult(c->pg);
		if (PQstatus(c->pg) == CONNECTION_BAD || (!result && ended)) {
			PQclear(result);
			return lost(c);
		}
		ended = !result;
		ExecStatusType status = PQresultStatus(result);
		if (status == PGRES_PIPELINE_SYNC)
			c->texts--;
		/* PQresultStatus of a NULL is this, too. */
		if (result && status == PGRES_FATAL_ERROR)
			r = -EIO;
		PQclear(result);
	}
	return r;
}

int conn_receive(struct conn *c, struct notify_sink *sink)
{
	CHECK_MAGIC(c, CONN_MAGIC);
	if (c->broken || PQflush(c->pg) < 0)
		return lost(c);
	bool alive = PQconsumeInput(c->pg);
	int r = take_results(c);
	/* Also of a connection that has ended: what was told was committed. */
	hand_over(c, sink);
	return alive ? r : lost(c);
}

unsigned conn_outstanding(const struct conn *c)
{
	return c->texts;
}
