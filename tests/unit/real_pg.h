/*
 * real_pg: what the pool's and the engine's tests need of the real PostgreSQL, and a relay that is
 * the network between.
 *
 * PROVOST_TEST_DSN is a superuser's URI of a private cluster on a unix socket, PROVOST_TEST_APP_DSN
 * that of a plain role; scripts/test sets them. Programs run side by side on that cluster: each has
 * a database of its own, and so its own objects, locks and channels. The tests look at the server
 * over a connection of their own. What they test connects to a relay, which a test can stop, tell
 * to hold what connects from then on, or to cut everything without a word, and which counts what
 * passes to the server.
 *
 * One relay at a time; its counters may be read by any thread, everything else is the main
 * thread's. One test is one process (Check forks), which its sessions' application_name says.
 */
#ifndef PROVOST_TESTS_REAL_PG_H
#define PROVOST_TESTS_REAL_PG_H

#include <arpa/inet.h>
#include <err.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "wait_until.h"

enum { PG_SKIPPED = 77 }; /* Meson's exit code */

#define PG_ONE        "SELECT '1'::json"
#define PG_NONE       "SELECT '1'::json WHERE false"
#define PG_HANG       "SELECT pg_sleep(600)"
#define PG_TERMINATED "SELECT pg_terminate_backend(pg_backend_pid())"

/* ---- the server ---------------------------------------------------------------------- */

static PGconn *pg;

static bool pg_is_there(void)
{
	return getenv("PROVOST_TEST_DSN") && getenv("PROVOST_TEST_APP_DSN");
}

static void pg_open(void)
{
	pg = PQconnectdb(getenv("PROVOST_TEST_DSN"));
	ck_assert_msg(PQstatus(pg) == CONNECTION_OK, "%s", PQerrorMessage(pg));
}

static void pg_close(void)
{
	PQfinish(pg);
	pg = NULL;
}

/* Runs it; the first field of the first row as a number, 0 when there is none. */
static unsigned pg_ask(const char *sql)
{
	PGresult *r = PQexec(pg, sql);
	ExecStatusType s = PQresultStatus(r);
	ck_assert_msg(s == PGRES_TUPLES_OK || s == PGRES_COMMAND_OK, "%s", PQerrorMessage(pg));
	unsigned n = PQntuples(r) ? (unsigned)strtoul(PQgetvalue(r, 0, 0), NULL, 10) : 0;
	PQclear(r);
	return n;
}

/* Asks for an aggregate over pg_stat_activity's rows of this test's sessions. */
static unsigned pg_sessions(const char *aggregate)
{
	_cleanup_free_ char *sql = xasprintf("SELECT %s FROM pg_stat_activity"
	                                     " WHERE application_name = 'test-%d'",
	                                     aggregate, (int)getpid());
	return pg_ask(sql);
}

/* A statement that waits for the test, which holds the lock. */
#define PG_GATED "SELECT '1'::json FROM pg_advisory_xact_lock_shared(77)"

__attribute__((unused)) static void close_gate(void)
{
	pg_ask("SELECT pg_advisory_lock(77)");
}

__attribute__((unused)) static void open_gate(void)
{
	pg_ask("SELECT pg_advisory_unlock(77)");
}

/* How many statements of this test are asleep in the server, or wait for a lock that the test
 * holds. */
__attribute__((unused)) static unsigned pg_running(void)
{
	return pg_sessions("count(*) FILTER (WHERE wait_event IN ('PgSleep', 'advisory'))");
}

/* ---- the relay's links --------------------------------------------------------------- */

enum { RELAY_LINKS = 128, CANCEL_REQUEST = 80877102 };

struct link {
	int client, server; /* sockets; server -1: held */
	/* Where in the client's messages we are. */
	bool greeted;
	unsigned char head[8];
	size_t head_len, body_left;
};

struct relay {
	char *url; /* of the plain role, through the relay */
	unsigned port;
	struct sockaddr_un upstream;
	int listener, wake; /* wake: eventfd */
	pthread_t thread;
	atomic_bool stopping, holding;
	atomic_bool pooling;  /* what it says of the sessions' numbers is wrong, as with a pooler */
	atomic_uint open;     /* connections */
	atomic_uint sessions; /* begun */
	atomic_uint cancels;  /* requests passed on */
	atomic_uint losing;   /* so many of them are not, from now on */
	atomic_uint executed; /* Execute messages passed on */
	/* Bytes passed on, and how many more until the connection ends; negative: no end. */
	atomic_long up, down, up_left, down_left;
	atomic_bool muted; /* what the server says is lost */
	pthread_mutex_t
	    lock; /* guards link[] and links against relay_cut; the thread changes them */
	struct link link[RELAY_LINKS];
	size_t links;
};

static uint32_t relay_number(const unsigned char *p)
{
	uint32_t n;
	memcpy(&n, p, sizeof n);
	return ntohl(n);
}

/* A head is complete: the length and code of a connection's first message, or the type and length
 * of a later one (PostgreSQL's protocol 3.0). */
static void relay_count_head(struct relay *r, struct link *l)
{
	if (l->greeted) {
		l->body_left = relay_number(l->head + 1) - 4;
		atomic_fetch_add(&r->executed, l->head[0] == 'E');
	} else {
		bool cancel = relay_number(l->head + 4) == CANCEL_REQUEST;
		l->body_left = relay_number(l->head) - 8;
		atomic_fetch_add(cancel ? &r->cancels : &r->sessions, 1);
	}
	l->greeted = true;
	l->head_len = 0;
}

static void relay_count(struct relay *r, struct link *l, const unsigned char *p, size_t n)
{
	while (n > 0) {
		size_t body = MIN(n, l->body_left);
		l->body_left -= body;
		p += body;
		n -= body;
		if (n == 0)
			break;
		l->head[l->head_len++] = *p++;
		n--;
		if (l->head_len == (l->greeted ? 5u : 8u))
			relay_count_head(r, l);
	}
}

/* BackendKeyData names the session by its process. */
static void relay_disguise(unsigned char *data, size_t n)
{
	static const unsigned char head[] = {'K', 0, 0, 0, 12};
	unsigned char *found = memmem(data, n, head, sizeof head);
	if (found && (size_t)(found - data) + sizeof head + 4 <= n)
		found[sizeof head + 3] ^= 1;
}

/* How many of `n` bytes may pass before the connection is to end, which is for once. */
static size_t relay_allow(atomic_long *left, size_t n, bool *ret_end)
{
	long allowed = atomic_load(left);
	*ret_end = allowed >= 0 && (size_t)allowed <= n;
	if (allowed >= 0)
		atomic_store(left, *ret_end ? -1 : allowed - (long)n);
	return *ret_end ? (size_t)allowed : n;
}

/* Whether it is a request to cancel, which the test wants lost. As it has been accepted, who sent
 * it takes it for delivered: so it is with one that reaches a backend which runs nothing yet. */
static bool relay_loses(struct relay *r, const struct link *l, const unsigned char *data, size_t n)
{
	if (l->greeted || n < 8 || relay_number(data + 4) != CANCEL_REQUEST ||
	    atomic_load(&r->losing) == 0)
		return false;
	atomic_fetch_sub(&r->losing, 1);
	return true;
}

/* Passes on what is there. False: the connection has ended. */
static bool relay_pass(struct relay *r, struct link *l, bool to_server)
{
	unsigned char data[16384];
	ssize_t n = recv(to_server ? l->client : l->server, data, sizeof data, 0);
	if (n <= 0)
		return false;
	if (!to_server && atomic_load(&r->pooling))
		relay_disguise(data, (size_t)n);
	if (!to_server && atomic_load(&r->muted))
		return true;
	if (to_server && relay_loses(r, l, data, (size_t)n))
		return false;
	atomic_long *left = to_server ? &r->up_left : &r->down_left;
	bool end;
	size_t allowed = relay_allow(left, (size_t)n, &end);
	ssize_t sent = send(to_server ? l->server : l->client, data, allowed, MSG_NOSIGNAL);
	if (sent > 0 && to_server)
		relay_count(r, l, data, (size_t)sent);
	atomic_fetch_add(to_server ? &r->up : &r->down, MAX(sent, 0));
	return sent == n && !end;
}

static void relay_accept(struct relay *r)
{
	int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_uint_lt(r->links, RELAY_LINKS);
	pthread_mutex_lock(&r->lock);
	r->link[r->links++] = (struct link){.client = fd, .server = -1};
	pthread_mutex_unlock(&r->lock);
	atomic_fetch_add(&r->open, 1);
}

static void relay_end(struct relay *r, size_t i)
{
	close(r->link[i].client);
	if (r->link[i].server >= 0)
		close(r->link[i].server);
	r->link[i] = r->link[--r->links];
	atomic_fetch_sub(&r->open, 1);
}

static void relay_connect(struct relay *r, struct link *l)
{
	l->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(l->server, (struct sockaddr *)&r->upstream, sizeof r->upstream),
	                 0);
}

/* ---- the relay's thread -------------------------------------------------------------- */

static void relay_prepare(struct relay *r, struct pollfd *p)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->links; i++) {
		struct link *l = &r->link[i];
		if (l->server < 0 && !atomic_load(&r->holding))
			relay_connect(r, l);
		short from_client = l->server < 0 ? POLLRDHUP : POLLIN;
		p[2 * i] = (struct pollfd){.fd = l->client, .events = from_client};
		p[2 * i + 1] = (struct pollfd){.fd = l->server, .events = POLLIN};
	}
	pthread_mutex_unlock(&r->lock);
}

static void relay_pass_all(struct relay *r, const struct pollfd *p)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = r->links; i-- > 0;) {
		struct link *l = &r->link[i];
		bool on = !p[2 * i].revents || (l->server >= 0 && relay_pass(r, l, true));
		if (on && p[2 * i + 1].revents)
			on = relay_pass(r, l, false);
		if (!on)
			relay_end(r, i);
	}
	pthread_mutex_unlock(&r->lock);
}

static void *relay_run(void *arg)
{
	struct relay *r = arg;
	struct pollfd p[2 + 2 * RELAY_LINKS] = {{.fd = r->wake, .events = POLLIN},
	                                        {.fd = r->listener, .events = POLLIN}};
	uint64_t count;
	while (!atomic_load(&r->stopping)) {
		relay_prepare(r, p + 2);
		if (poll(p, 2 + 2 * r->links, -1) < 0)
			continue;
		if (p[0].revents && read(r->wake, &count, sizeof count) < 0)
			continue;
		relay_pass_all(r, p + 2);
		if (p[1].revents)
			relay_accept(r);
	}
	return NULL;
}

/* ---- the relay's life ---------------------------------------------------------------- */

/* A socket at that port, or at any free one when it is 0, beside those that have it already. */
static int relay_bind(unsigned *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static void relay_wake(struct relay *r)
{
	uint64_t one = 1;
	ck_assert_int_eq(write(r->wake, &one, sizeof one), sizeof one);
}

/* To the server that pg_open has connected to. `port`: that of one that was stopped; 0: any free
 * one, which is kept from all others until the test's process ends, also while no relay listens. */
static struct relay *relay_start(unsigned port)
{
	struct relay *r = xcalloc(1, sizeof *r);
	if (port == 0)
		(void)relay_bind(&port);
	r->upstream.sun_family = AF_UNIX;
	int n = snprintf(r->upstream.sun_path, sizeof r->upstream.sun_path, "%s/.s.PGSQL.%s",
	                 PQhost(pg), PQport(pg));
	ck_assert(n > 0 && (size_t)n < sizeof r->upstream.sun_path && PQhost(pg)[0] == '/');
	r->port = port;
	r->listener = relay_bind(&port);
	ck_assert_int_eq(listen(r->listener, 64), 0);
	const char *dsn = getenv("PROVOST_TEST_APP_DSN");
	/* Of a parameter given twice libpq takes the last. */
	r->url = xasprintf("%s%chost=127.0.0.1&port=%u&sslmode=disable&gssencmode=disable"
	                   "&application_name=test-%d",
	                   dsn, strchr(dsn, '?') ? '&' : '?', r->port, (int)getpid());
	r->wake = eventfd(0, EFD_CLOEXEC);
	atomic_store(&r->up_left, -1);
	atomic_store(&r->down_left, -1);
	pthread_mutex_init(&r->lock, NULL);
	ck_assert_int_eq(pthread_create(&r->thread, NULL, relay_run, r), 0);
	return r;
}

/* Ends every connection, and refuses new ones. */
static void relay_stop(struct relay **rp)
{
	struct relay *r = *rp;
	*rp = NULL;
	atomic_store(&r->stopping, true);
	relay_wake(r);
	pthread_join(r->thread, NULL);
	close(r->listener);
	while (r->links)
		relay_end(r, 0);
	close(r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r->url);
	free(r);
}

/* From now on what connects is accepted and gets no answer, until that is taken back. */
__attribute__((unused)) static void relay_hold(struct relay *r, bool on)
{
	atomic_store(&r->holding, on);
	relay_wake(r);
}

/* Ends the connections there are. */
__attribute__((unused)) static void relay_cut(struct relay *r)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->links; i++) {
		shutdown(r->link[i].client, SHUT_RDWR);
		if (r->link[i].server >= 0)
			shutdown(r->link[i].server, SHUT_RDWR);
	}
	pthread_mutex_unlock(&r->lock);
}

/* ---- a test program ------------------------------------------------------------------ */

/* Of a parameter given twice libpq takes the last. */
static char *pg_with(const char *url, const char *more)
{
	return xasprintf("%s%c%s", url, strchr(url, '?') ? '&' : '?', more);
}

/* Outside of tests, where Check's assertions are not. */
static void pg_command(const char *format, const char *database)
{
	_cleanup_free_ char *sql = xasprintf(format, database);
	PGconn *c = PQconnectdb(getenv("PROVOST_TEST_DSN"));
	PGresult *r = PQexec(c, sql);
	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		errx(EXIT_FAILURE, "%s: %s", sql, PQerrorMessage(c));
	PQclear(r);
	PQfinish(c);
}

static void pg_enter(const char *variable, const char *database)
{
	_cleanup_free_ char *more = xasprintf("dbname=%s", database);
	_cleanup_free_ char *url = pg_with(getenv(variable), more);
	if (setenv(variable, url, 1) < 0)
		err(EXIT_FAILURE, "setenv");
}

/* In a database of its own. */
static int pg_run_suite(Suite *s)
{
	SRunner *r = srunner_create(s);
	_cleanup_free_ char *database = xasprintf("test_%d", (int)getpid());
	pg_command("CREATE DATABASE %s", database);
	pg_enter("PROVOST_TEST_DSN", database);
	pg_enter("PROVOST_TEST_APP_DSN", database);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	pg_enter("PROVOST_TEST_DSN", "postgres");
	pg_command("DROP DATABASE %s WITH (FORCE)", database);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
