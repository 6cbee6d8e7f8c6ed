#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h> /* its tcp_info is newer than libc's */
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "http_impl.h"
#include "provost/log.h"

enum {
	RESERVE = 64, /* connections beyond max_connections, to be told 503 */
	/* Of libmicrohttpd's memory for one request's head and its answer's, beyond the target.
	 * It zeroes all of it between two requests: with 64 KiB that was a seventh of a hit. It
	 * also keeps a copy of the Cookie field, and a session may have 8 KiB. */
	HEAD_MEMORY = 12 << 10,
	LEFT_AT_ONCE = 128,     /* requests whose callers have left, in one sweep */
	MAX_URL_MIN = 8 << 10,  /* that memory is made for: a reload may raise max_url that far */
	PROGRESS = 64 << 10,    /* bytes of its answer that a client takes per idle_timeout */
	FIRST_REQUEST_MS = 500, /* how long a stop waits for the first request of a connection */
};

/* ---- options ------------------------------------------------------------------------- */

static void live_free(struct snapshot_object *o)
{
	struct http_live *l = (struct http_live *)o;
	strlist_done(&l->origins);
	free(l);
}

void http_configure(struct http *h, const struct http_options *o)
{
	struct http_live *l = xcalloc(1, sizeof *l);
	l->object.free = live_free;
	for (size_t i = 0; i < o->origins.count; i++)
		strlist_add(&l->origins, o->origins.item[i], strlen(o->origins.item[i]));
	l->max_url = MIN((size_t)o->max_url, h->max_url);
	if (l->max_url < (size_t)o->max_url)
		log_warn("max_url: connections have memory for the length that the server was "
		         "started with; a longer one needs a restart",
		         LOGU("max_url", l->max_url));
	l->max_body = (size_t)o->max_body;
	l->idle_timeout_ms = (uint64_t)o->idle_timeout_ms;
	l->header_timeout_ms = (uint64_t)o->header_timeout_ms;
	l->development = o->development;
	l->codings = o->codings;
	l->freshness = o->freshness;
	snapshot_set(h->live, &l->object);
}

void http_publish(struct http *h, struct catalog *catalog)
{
	snapshot_set(h->index, &index_new(catalog)->object);
	snapshot_set(h->catalog, &catalog->object);
}

void http_set_phase(struct http *h, enum http_phase phase)
{
	atomic_store_explicit(&h->phase, phase, memory_order_relaxed);
}

/* ---- connections --------------------------------------------------------------------- */

static void client_open(struct http *h, struct MHD_Connection *connection, void **context)
{
	struct client *c = calloc(1, sizeof *c);
	if (!c)
		return;
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	c->magic = CLIENT_MAGIC;
	c->http = h;
	c->fd = info->connect_fd;
	c->accepted_ms = clock_ms();
	atomic_init(&c->step, STEP_NEW);
	atomic_init(&c->deadline_ms, c->accepted_ms + http_live(h)->header_timeout_ms);
	pthread_mutex_lock(&h->lock);
	LIST_INSERT_HEAD(&h->clients, c, link);
	h->count++;
	/* Those refused take nobody's place: they would else keep out who tries again and again. */
	c->refused = h->admitted >= h->max_connections;
	h->admitted += !c->refused;
	pthread_mutex_unlock(&h->lock);
	*context = c;
}

/* libmicrohttpd closes the descriptor after this, so what is on the list is open. */
static void client_close(struct http *h, void **context)
{
	struct client *c = *context;
	if (!c)
		return;
	CHECK_MAGIC(c, CLIENT_MAGIC);
	pthread_mutex_lock(&h->lock);
	LIST_REMOVE(c, link);
	h->count--;
	h->admitted -= !c->refused;
	pthread_mutex_unlock(&h->lock);
	c->magic = 0;
	request_free_memory(&c->request);
	auth_memory_done(&c->auth);
	free(c);
	*context = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		client_open(cls, connection, context);
	else
		client_close(cls, context);
}

/* ---- deadlines ----------------------------------------------------------------------- */

static uint64_t bytes_acked(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return 0;
	return info.tcpi_bytes_acked;
}

/* Whether the client may go on: another idle timeout for every PROGRESS bytes that it has taken of
 * its answer. */
static bool sweep_sending(struct client *c, uint64_t deadline, uint64_t now_ms, uint64_t idle_ms)
{
	uint64_t acked = bytes_acked(c->fd);
	if (c->acked_deadline_ms != deadline) { /* the first look at this answer */
		c->acked_deadline_ms = deadline;
		c->acked = acked;
		return true;
	}
	if (acked < c->acked + PROGRESS)
		return now_ms < deadline;
	/* Only if it is still the same answer's: the http thread may have moved on. */
	if (atomic_compare_exchange_strong_explicit(&c->deadline_ms, &deadline, now_ms + idle_ms,
	                                            memory_order_relaxed, memory_order_relaxed)) {
		c->acked_deadline_ms = now_ms + idle_ms;
		c->acked = acked;
	}
	return true;
}

static void sweep_one(struct client *c, uint64_t now_ms, uint64_t idle_ms)
{
	uint64_t deadline = atomic_load_explicit(&c->deadline_ms, memory_order_relaxed);
	int step = atomic_load_explicit(&c->step, memory_order_relaxed);
	if (!deadline)
		return;
	if (step == STEP_SENDING ? sweep_sending(c, deadline, now_ms, idle_ms) : now_ms < deadline)
		return;
	/* libmicrohttpd sees the end of the stream and closes; nothing is freed here. */
	shutdown(c->fd, SHUT_RDWR);
}

/* Whether the peer of a suspended request, which libmicrohttpd does not look at, has closed. One
 * that has closed its own direction only counts as well: hardly anybody does that and reads on. */
static bool has_left(const struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
	return atomic_load_explicit(&c->step, memory_order_relaxed) == STEP_WAITING &&
	       poll(&p, 1, 0) > 0;
}

void http_sweep(struct http *h, uint64_t now_ms)
{
	uint64_t left[LEFT_AT_ONCE]; /* as in struct client */
	size_t n = 0;
	struct client *c;
	uint64_t idle_ms = http_live(h)->idle_timeout_ms;
	pthread_mutex_lock(&h->lock);
	LIST_FOREACH (c, &h->clients, link) {
		sweep_one(c, now_ms, idle_ms);
		if (n == LEFT_AT_ONCE || !has_left(c))
			continue;
		left[n++] = atomic_load_explicit(&c->waiters, memory_order_relaxed);
	}
	pthread_mutex_unlock(&h->lock);
	while (n-- > 0)
		for (uint64_t i = 0; i < left[n] % (1 << WAITERS_BITS); i++)
			engine_abandon(h->engine, (left[n] >> WAITERS_BITS) + i);
}

/* Who was let in a moment ago has a request on its way. */
static bool is_busy(const struct client *c, uint64_t now_ms)
{
	int step = atomic_load_explicit(&c->step, memory_order_relaxed);
	if (step == STEP_NEW)
		return now_ms < c->accepted_ms + FIRST_REQUEST_MS;
	return step != STEP_IDLE;
}

void http_load(struct http *h, uint64_t now_ms, size_t *ret_requests, size_t *ret_connections)
{
	struct client *c;
	size_t n = 0;
	pthread_mutex_lock(&h->lock);
	LIST_FOREACH (c, &h->clients, link)
		n += is_busy(c, now_ms);
	*ret_requests = n;
	*ret_connections = h->count;
	pthread_mutex_unlock(&h->lock);
}

/* ---- start --------------------------------------------------------------------------- */

static void log_daemon(void *cls, const char *fmt, va_list ap)
{
	char text[256];
	(void)cls;
	if (!log_enabled(LOG_LEVEL_DEBUG))
		return;
	vsnprintf(text, sizeof text, fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("libmicrohttpd", LOGS("text", text));
}

/* We decode for ourselves, from the target as it came; libmicrohttpd's in-place decoding would cost
 * time and turn %00 into the end of a string. */
static size_t leave_escaped(void *cls, struct MHD_Connection *c, char *s)
{
	(void)cls;
	(void)c;
	return strlen(s);
}

static unsigned thread_count(const struct http_options *o)
{
	return o->threads ? o->threads : (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

size_t http_reserve(const struct http_options *o)
{
	return (size_t)RESERVE * thread_count(o);
}

struct http *http_new(const struct http_options *o, const struct http_parts *parts)
{
	struct http *h = xcalloc(1, sizeof *h);
	h->engine = parts->engine;
	h->cache = parts->cache;
	h->generations = parts->generations;
	h->auth = parts->auth;
	h->identities = parts->identities;
	h->pool = parts->pool;
	h->hub = parts->hub;
	h->courier = parts->courier;
	h->test_echo = parts->test_echo;
	h->listener = parts->listener;
	h->catalog = parts->catalog;
	h->listen_fd = -1;
	h->listen = xstrdup(o->listen);
	h->threads = thread_count(o);
	h->max_connections = o->max_connections;
	h->max_url = MAX((size_t)o->max_url, (size_t)MAX_URL_MIN);
	h->batch = batch_declare();
	h->live = snapshot_new();
	h->index = snapshot_new();
	snapshot_set(h->index, &index_new(NULL)->object);
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->sending_lock, NULL);
	LIST_INIT(&h->clients);
	http_configure(h, o);
	return h;
}

int http_start(struct http *h, struct errors *errs)
{
	int fd = listen_open(h->listen, errs);
	if (fd < 0)
		return fd;
	h->listen_fd = fd;
	struct MHD_OptionItem many[] = {
	    {MHD_OPTION_THREAD_POOL_SIZE, h->threads, NULL},
	    {MHD_OPTION_END, 0, NULL},
	};
	struct MHD_OptionItem one[] = {{MHD_OPTION_END, 0, NULL}};
	/* libmicrohttpd divides the limit among its threads. */
	unsigned limit = h->max_connections + RESERVE * h->threads;
	h->daemon = MHD_start_daemon(
	    MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME |
	        MHD_USE_ITC | MHD_USE_TURBO | MHD_ALLOW_UPGRADE,
	    0, NULL, NULL, request_handle, h,
	    /* first: it is used while the others are read */
	    MHD_OPTION_EXTERNAL_LOGGER, log_daemon, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
	    MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, h->max_url + HEAD_MEMORY,
	    MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
	    MHD_OPTION_URI_LOG_CALLBACK, request_begin, h, MHD_OPTION_NOTIFY_COMPLETED,
	    request_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_ARRAY,
	    h->threads > 1 ? many : one, MHD_OPTION_END);
	if (!h->daemon) {
		errors_add(errs, NULL, 0, "cannot start the http threads: %s", strerror(errno));
		/* libmicrohttpd may or may not have closed it; the process ends anyway */
		h->listen_fd = -1;
		return -EIO;
	}
	return 0;
}

unsigned http_port(const struct http *h)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof a;
	if (getsockname(h->listen_fd, (struct sockaddr *)&a, &len) < 0)
		return 0;
	return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
	                                     : ((struct sockaddr_in *)&a)->sin_port);
}

/* ---- stop ---------------------------------------------------------------------------- */

static void nap(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

/* A socket filter that drops segments with SYN and without ACK: no handshake begins any more, those
 * begun are completed. The caller whose SYN is dropped repeats it a second later and meets a closed
 * port, rather than a connection that is reset under its request. */
static void drop_new_handshakes(int fd)
{
	enum { TCP_FLAGS = 13, SYN = 0x02, ACK = 0x10 };
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS),
	    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	    BPF_STMT(BPF_RET | BPF_K, 0x7fffffff),
	};
	struct sock_fprog program = {.len = ELEMENTSOF(code), .filter = code};
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
		log_warn("http: connections that arrive during the stop may be reset",
		         LOGS("reason", strerror(errno)));
}

/* Connections that the kernel has accepted and libmicrohttpd not yet. */
static unsigned backlog(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return 0;
	return info.tcpi_unacked; /* of a listening socket: its accept queue */
}

void http_quiesce(struct http *h)
{
	if (!h->daemon || h->quiesced)
		return;
	drop_new_handshakes(h->listen_fd);
	for (unsigned quiet = 0, turns = 0; quiet < 3 && turns < 100; turns++) {
		nap(10);
		quiet = backlog(h->listen_fd) ? 0 : quiet + 1;
	}
	MHD_socket fd = MHD_quiesce_daemon(h->daemon);
	if (fd >= 0)
		close(fd);
	h->quiesced = true;
}

void http_stop(struct http *h)
{
	if (!h->daemon)
		return;
	MHD_stop_daemon(h->daemon);
	h->daemon = NULL;
}

void http_free(struct http **hp)
{
	struct http *h = *hp;
	if (!h)
		return;
	*hp = NULL;
	ALWAYS(!h->daemon && h->count == 0 && h->admitted == 0 && h->sending_bytes == 0);
	endpoint_free(&h->batch);
	snapshot_free(&h->live);
	snapshot_free(&h->index);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->sending_lock);
	free(h->listen);
	free(h);
}
