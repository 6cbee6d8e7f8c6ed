/*
 * http: the only module that knows libmicrohttpd.
 *
 * Its epoll threads parse, route, validate, look the answer up in the cache and serve it from
 * there; a request that needs the database waits for a job of the engine while its connection is
 * suspended. No callback blocks. One request at a time lives in its connection's own structure,
 * memory included, so that a hit on a kept-alive connection allocates nothing of ours.
 *
 * Bounds: max_connections (beyond it 503 and close; beyond a small reserve the kernel's backlog),
 * max_url, max_body, header_timeout for a request's head, idle_timeout between requests.
 */
#ifndef PROVOST_HTTP_H
#define PROVOST_HTTP_H

#include "provost/errors.h"
#include "provost/freshness.h"
#include "provost/strlist.h"

struct auth;
struct cache;
struct catalog;
struct engine;
struct generations;
struct http;
struct courier;
struct hub;
struct identities;
struct pool;
struct snapshot;

struct http_options {
	char *listen;             /* `address:port`, `[::1]:8080`; needs a restart */
	unsigned threads;         /* 0: one per core; needs a restart */
	unsigned max_connections; /* needs a restart */
	struct strlist origins;   /* `https://admin.example.org`; empty: same origin only */
	int64_t max_url;          /* bytes of the request target */
	int64_t max_body;         /* bytes */
	int64_t idle_timeout_ms, header_timeout_ms;
	int64_t drain_delay_ms, shutdown_timeout_ms;
	char *access_log; /* `off`, `stderr` or a path */
	bool development;
	/* Set by main from the cache's section. */
	unsigned codings;           /* bits of enum entry_coding that bodies may be sent in */
	struct freshness freshness; /* of endpoints that say nothing; for the report */
};

/* Where `listen` points, checked: -EINVAL for what is not an address with a port, -EPERM for an
 * address that is not loopback, as mode = none and development need it. */
int http_listen_check(const char *listen) _must_check_;

/* Descriptors that the connections beyond max_connections may take, which are told 503. */
size_t http_reserve(const struct http_options *o);

/* What an http server stands on; all outlive it. */
struct http_parts {
	struct snapshot *catalog;
	struct cache *cache;
	struct generations *generations;
	struct engine *engine;
	struct pool *pool;
	struct listener *listener;
	struct auth *auth;
	struct identities *identities; /* NULL: mode = none */
	struct hub *hub;               /* of WebSockets: /ws */
	struct courier *courier;       /* for its report */
	bool test_echo;                /* /echo as well, for conformance tests */
};

struct http *http_new(const struct http_options *o, const struct http_parts *parts);
/* Binds, listens, starts the threads. Negative errno, with what to do about it in `errs`. */
int http_start(struct http *h, struct errors *errs) _must_check_;
/* Applies the live options to requests that begin from now on. */
void http_configure(struct http *h, const struct http_options *o);

/* Serves these endpoints from now on; takes the catalogue over. */
void http_publish(struct http *h, struct catalog *catalog);

enum http_phase {
	HTTP_STARTING, /* /readyz 503, endpoints 503 */
	HTTP_READY,
	HTTP_DRAINING, /* /readyz 503, all else as ever */
	HTTP_CLOSING,  /* and Connection: close on every answer */
};
void http_set_phase(struct http *h, enum http_phase phase);

/* Closes connections past their deadline, and abandons the jobs of callers who left. Janitor. */
void http_sweep(struct http *h, uint64_t now_ms);

/* Stops accepting without losing a connection the kernel has already accepted. */
void http_quiesce(struct http *h);

/* Requests begun and not completed, also those that a connection of half a second or less has yet
 * to send, and open connections. */
void http_load(struct http *h, uint64_t now_ms, size_t *ret_requests, size_t *ret_connections);

/* Stops the daemon. No job of ours may be left in the engine. */
void http_stop(struct http *h);
void http_free(struct http **h);

/* The port listened on (for `:0`). */
unsigned http_port(const struct http *h);

#endif
