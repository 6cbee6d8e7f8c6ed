#include "descriptors.h"

#include <errno.h>
#include <sys/resource.h>

#include "provost/config.h"
#include "provost/errors.h"
#include "provost/http.h"
#include "provost/log.h"

enum {
	OWN = 64,             /* logs, files that are read, epoll sets, connections for identities
	                         and coverage */
	POOLED = 2,           /* per connection of the pool: one may be cancelled by another */
	CONNECTIONS_MIN = 16, /* with fewer there is no point in starting */
};

static size_t limit_now(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	return (size_t)l.rlim_cur;
}

void descriptors_raise(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur == l.rlim_max)
		return;
	l.rlim_cur = l.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

/* All that clients cannot take. */
static size_t kept(const struct config *c)
{
	return http_reserve(&c->http) + (size_t)POOLED * c->pool.max + OWN;
}

static size_t room_for_clients(const struct config *c)
{
	size_t limit = limit_now(), needed = kept(c);
	return limit > needed ? limit - needed : 0;
}

/* Clients that idle must not take the descriptors of those who are to be answered, nor WebSockets
 * those of requests: where not all fit, each kind has half. */
int descriptors_fit(const struct config *c, struct clients *ret)
{
	size_t limit = limit_now(), room = room_for_clients(c);
	size_t wanted = (size_t)c->http.max_connections + c->hub.max_clients;
	ret->connections = c->http.max_connections;
	ret->sockets = c->hub.max_clients;
	log_info("descriptors", LOGU("limit", MIN(limit, (size_t)INT64_MAX)),
	         LOGU("needed", wanted + kept(c)));
	if (room >= wanted)
		return 0;
	if (room < CONNECTIONS_MIN) {
		log_error("too few descriptors to start: raise the limit (ulimit -Hn), or lower "
		          "pool_max",
		          LOGU("limit", limit), LOGU("needed", kept(c) + CONNECTIONS_MIN));
		return -EMFILE;
	}
	ret->connections = (unsigned)MIN((size_t)c->http.max_connections, room / 2);
	ret->sockets = (unsigned)MIN((size_t)c->hub.max_clients, room - ret->connections);
	log_warn("the limit of descriptors (ulimit -Hn) allows fewer connections than "
	         "max_connections and max_clients",
	         LOGU("max_connections", c->http.max_connections),
	         LOGU("allowed", ret->connections), LOGU("max_clients", c->hub.max_clients),
	         LOGU("allowed_clients", ret->sockets), LOGU("limit", limit),
	         LOGU("needed", wanted + kept(c)));
	return 0;
}

int descriptors_check(const struct config *c, const struct clients *now, struct errors *errs)
{
	unsigned sockets = MIN(now->sockets, c->hub.max_clients);
	size_t limit = limit_now(), needed = (size_t)now->connections + sockets + kept(c);
	if (needed <= limit)
		return 0;
	errors_add(errs, c->file, 0,
	           "[database] pool_max: %u connections and %u of clients need %zu descriptors, of "
	           "which there are %zu: lower it, or raise the limit (ulimit -Hn) and restart",
	           c->pool.max, now->connections + sockets, needed, limit);
	return -EINVAL;
}

void descriptors_refit(const struct config *c, struct clients *now)
{
	size_t room = room_for_clients(c) - now->connections;
	now->sockets = (unsigned)MIN((size_t)c->hub.max_clients, room);
	if (now->sockets < c->hub.max_clients)
		log_warn("the limit of descriptors (ulimit -Hn) allows fewer WebSockets than "
		         "max_clients",
		         LOGU("max_clients", c->hub.max_clients),
		         LOGU("allowed_clients", now->sockets));
}
