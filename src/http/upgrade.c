#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "http_impl.h"
#include "provost/hub.h"
#include "provost/log.h"
#include "provost/ws.h"

enum {
	ORIGIN_WARN_MS = 60000, /* between two warnings: anybody can bring them about */
	ORIGIN_SHOWN = 256,
};

/* Everything that can fail is done before the 101 is sent. */
struct upgrade {
	struct hub *hub;
	int fd; /* of the connection, a second one: libmicrohttpd closes its own at once */
	bool echo, identified;
	struct identity *identity; /* or NULL: it will say in time */
};

void upgrade_free(struct upgrade **up)
{
	struct upgrade *u = *up;
	if (!u)
		return;
	*up = NULL;
	if (u->fd >= 0) {
		close(u->fd);
		hub_unreserve(u->hub, u->identified);
	}
	identity_unref(&u->identity);
	free(u);
}

/* ---- the handshake: RFC 6455, section 4.2.1 ------------------------------------------ */

static bool refuse(struct request *q, unsigned status, const char *why, enum MHD_Result *ret)
{
	*ret = respond_problem(q, status, why);
	return true;
}

static bool refuse_version(struct request *q, const char *why, enum MHD_Result *ret)
{
	*ret = respond_upgrade_required(q, why);
	return true;
}

/* The page shows nothing of why, and its author is hardly who can mend it. */
static void warn_of_origin(struct request *q)
{
	struct http *h = http_of(q);
	char origin[ORIGIN_SHOWN];
	uint64_t now = clock_ms();
	/* Relaxed, as nothing else hangs on it: whoever comes second is not said. */
	uint64_t due = atomic_load_explicit(&h->origin_warn_ms, memory_order_relaxed);

	if (now < due ||
	    !atomic_compare_exchange_strong_explicit(&h->origin_warn_ms, &due, now + ORIGIN_WARN_MS,
	                                             memory_order_relaxed, memory_order_relaxed))
		return;
	snprintf(origin, sizeof origin, "%s", q->head.origin);
	log_warn("websocket: a page was refused for its origin; if it may connect, add that to "
	         "[http] origins",
	         LOGS("id", q->id), LOGS("origin", origin));
}

static bool is_refused(struct request *q, enum MHD_Result *ret)
{
	const struct head *h = &q->head;
	int phase = atomic_load_explicit(&http_of(q)->phase, memory_order_relaxed);
	if (phase == HTTP_STARTING || phase == HTTP_CLOSING)
		return refuse(q, 503, "The server is starting, or stopping. Try again.", ret);
	if (strcmp(q->line.method, "GET") != 0) {
		*ret = respond_not_allowed(q, 1u << METHOD_GET);
		return true;
	}
	if (h->origin && !caller_origin_permitted(q)) {
		warn_of_origin(q);
		return refuse(q, 403, "Pages of this origin may not connect; see [http] origins.",
		              ret);
	}
	if (!strcmp(q->line.version, "HTTP/1.0"))
		return refuse(q, 400, "A WebSocket needs HTTP/1.1.", ret);
	if (!h->upgrades || !h->websocket)
		return refuse_version(q, "This path is for WebSockets.", ret);
	if (!h->ws_version || strcmp(h->ws_version, "13") != 0)
		return refuse_version(q, "Only version 13 of the WebSocket protocol is spoken.",
		                      ret);
	if (h->ws_repeated || !h->ws_key || !ws_key_is_valid(h->ws_key, strlen(h->ws_key)))
		return refuse(q, 400, "Sec-WebSocket-Key must be there once: 16 bytes in base64.",
		              ret);
	if (h->length > 0 || h->chunked)
		return refuse(q, 400, "A handshake has no body.", ret);
	return false;
}

/* ---- handing over -------------------------------------------------------------------- */

/* The sweep must not shut down what is the hub's now. */
static void forget_descriptor(struct client *c)
{
	struct http *h = c->http;
	pthread_mutex_lock(&h->lock);
	c->fd = -1;
	atomic_store_explicit(&c->deadline_ms, 0, memory_order_relaxed);
	pthread_mutex_unlock(&h->lock);
}

/* The 101 is out. Closing libmicrohttpd's side from within this callback frees what it holds for
 * the connection, and keeps its list of suspended ones, which it walks over at every resume, short:
 * 5,000 sockets cost 4 MB instead of 109 MB. That is good without TLS only, where its close says
 * goodbye to the peer. */
static void on_upgraded(void *cls, struct MHD_Connection *connection, void *con_cls,
                        const char *extra, size_t extra_len, MHD_socket fd,
                        struct MHD_UpgradeResponseHandle *handle)
{
	struct request *q = cls;
	struct upgrade *u = q->upgrade;
	(void)connection;
	(void)con_cls;
	(void)fd;
	forget_descriptor(client_of(q));
	const struct hub_socket s = {
	    .fd = u->fd,
	    .identity = u->identity ? identity_ref(u->identity) : NULL,
	    .echo = u->echo,
	    .extra = extra,
	    .extra_len = extra_len,
	};
	u->fd = -1;
	int r = hub_adopt(u->hub, &s);
	if (r < 0 && r != -ESHUTDOWN)
		log_warn("websocket: a connection could not be taken over", LOGS("id", q->id),
		         LOGS("reason", strerror(-r)));
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static const char *why_full(int r)
{
	if (r == -EBUSY)
		return "Too many WebSockets are open. Try again.";
	if (r == -EAGAIN)
		return "Too many WebSockets have yet to say who they are. Try again, with a token.";
	return "The server is stopping. Try again.";
}

static enum MHD_Result begin(struct request *q, bool echo, struct identity *identity)
{
	char accept[WS_ACCEPT_LEN + 1];
	struct http *h = http_of(q);
	bool identified = echo || identity;
	int r = hub_reserve(h->hub, identified);
	if (r < 0) {
		identity_unref(&identity);
		return respond_problem(q, 503, why_full(r));
	}
	struct upgrade *u = calloc(1, sizeof *u);
	int fd = u ? fcntl(client_of(q)->fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (fd < 0) {
		free(u);
		hub_unreserve(h->hub, identified);
		identity_unref(&identity);
		return respond_problem(q, 503,
		                       "The server is out of descriptors or memory. Try again.");
	}
	*u = (struct upgrade){h->hub, fd, echo, identified, identity};
	q->upgrade = u;
	q->identity = identity; /* for the access log */
	if (ws_accept(q->head.ws_key, accept) < 0)
		return respond_problem(q, 500, "The handshake could not be answered.");
	return respond_upgrade(q, accept, on_upgraded);
}

enum MHD_Result upgrade_echo(struct request *q)
{
	enum MHD_Result ret;
	return is_refused(q, &ret) ? ret : begin(q, true, NULL);
}

enum MHD_Result upgrade_ws(struct request *q)
{
	struct identity *identity;
	enum MHD_Result ret;
	if (is_refused(q, &ret) || caller_identify_socket(q, &identity, &ret) < 0)
		return ret;
	return begin(q, false, identity);
}
