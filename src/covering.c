#include "covering.h"

#include <errno.h>

#include "provost/config.h"
#include "provost/conn.h"
#include "provost/coverage.h"

void covering_init(struct covering *v, struct generations *g, int interrupt)
{
	*v = (struct covering){.coverage = coverage_new(g), .interrupt = interrupt};
}

void covering_done(struct covering *v)
{
	conn_free(&v->conn);
	coverage_free(&v->coverage);
}

static int look(struct covering *v, struct catalog *c, const struct config *config,
                uint64_t deadline_us)
{
	_cleanup_errors_ struct errors *ignored = errors_new();
	if (!v->conn)
		v->conn = conn_open(config->pool.url, config->pool.prepare, v->interrupt,
		                    deadline_us, ignored);
	if (!v->conn)
		return errors_count(ignored) ? -ENOTCONN : -ECANCELED;
	int r = coverage_look(v->coverage, c, v->conn, deadline_us);
	if (conn_condition(v->conn) != CONN_CLEAN)
		conn_free(&v->conn);
	return r;
}

int covering_look(struct covering *v, struct catalog *c, const struct config *config)
{
	bool kept = v->conn != NULL;
	uint64_t deadline_us = clock_us() + COVERING_TIMEOUT_MS * 1000ull;
	int r = look(v, c, config, deadline_us);
	/* A connection that was kept may have died since the last look. */
	if (r == -ENOTCONN && kept && !v->conn)
		r = look(v, c, config, deadline_us);
	uint64_t now = clock_ms();
	v->due_ms = now + COVERING_EVERY_MS;
	v->earliest_ms = now + COVERING_APART_MS;
	return r == -EIO ? 0 : r;
}

void covering_hasten(struct covering *v)
{
	v->due_ms = MIN(v->due_ms, v->earliest_ms);
}

int64_t covering_due_in_ms(const struct covering *v)
{
	uint64_t now = clock_ms();
	return v->due_ms > now ? (int64_t)(v->due_ms - now) : 0;
}
