/*
 * pg_stub: as much of a PostgreSQL server as the pool and the engine can tell from a real one, on a
 * port of this machine, with a thread per connection.
 *
 * It speaks the extended protocol, version 3.0. What a statement does is its text: "one" returns a
 * row with the JSON 1, "none" no row, "hang" ends only when cancelled, "die" closes the connection
 * without a word, "terminated" with the last words of an administrator's command, "conflict" and
 * "refused" are errors 40001 and 42501; anything else returns its own text. One test program uses
 * one stub at a time, from its main thread; the counters may be read by any.
 */
#ifndef PROVOST_TESTS_PG_STUB_H
#define PROVOST_TESTS_PG_STUB_H

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "provost/base.h"

enum { STUB_SESSIONS = 512, STUB_STATEMENTS = 64, STUB_MESSAGE = 4096 };

struct stub;

struct stub_session {
	struct stub *stub;
	pthread_t thread;
	int fd, cancelled; /* the socket, an eventfd */
	unsigned pid;
	struct {
		char name[32], sql[64];
	} statement[STUB_STATEMENTS];
	unsigned statements, bound;
	bool failed; /* until the next Sync everything is skipped */
	char out[STUB_MESSAGE];
	size_t out_len;
};

struct stub {
	int listener, stop; /* stop: eventfd, readable when all must end */
	unsigned port;
	pthread_t thread;
	atomic_bool silent; /* connections are taken and never answered */
	atomic_uint sessions, open, executed, cancels;
	pthread_mutex_t lock; /* guards session[] while it grows */
	struct stub_session *session[STUB_SESSIONS];
	char url[128];
};

static void stub_raise(int fd)
{
	uint64_t one = 1;
	ck_assert_int_eq(write(fd, &one, sizeof one), sizeof one);
}

/* ---- messages ------------------------------------------------------------------------ */

static void stub_put(struct stub_session *s, char type, const void *body, size_t n)
{
	uint32_t length = htonl((uint32_t)n + 4);
	ck_assert_uint_le(s->out_len + n + 5, sizeof s->out);
	s->out[s->out_len] = type;
	memcpy(s->out + s->out_len + 1, &length, 4);
	if (n)
		memcpy(s->out + s->out_len + 5, body, n);
	s->out_len += n + 5;
}

static void stub_flush(struct stub_session *s)
{
	for (size_t done = 0; done < s->out_len;) {
		ssize_t n = send(s->fd, s->out + done, s->out_len - done, MSG_NOSIGNAL);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	s->out_len = 0;
}

static void stub_error(struct stub_session *s, const char *severity, const char *state)
{
	char body[128];
	int n = snprintf(body, sizeof body, "S%s%cV%s%cC%s%cMas the test asked%c%c", severity, 0,
	                 severity, 0, state, 0, 0, 0);
	stub_put(s, 'E', body, (size_t)n);
	s->failed = true;
}

static void stub_ready(struct stub_session *s)
{
	stub_put(s, 'Z', "I", 1);
	stub_flush(s);
}

static void stub_row(struct stub_session *s, const char *value)
{
	char body[128] = {0, 1, 0, 0, 0, (char)strlen(value)};
	memcpy(body + 6, value, strlen(value));
	stub_put(s, 'D', body, 6 + strlen(value));
}

static void stub_columns(struct stub_session *s)
{
	/* One column `a` of type json, in text format. */
	static const char body[] = "\0\1a\0\0\0\0\0\0\0\0\0\0\x72\xff\xff\xff\xff\xff\xff\0\0";
	stub_put(s, 'T', body, sizeof body - 1);
}

/* ---- statements ---------------------------------------------------------------------- */

/* False: the connection ends. */
static bool stub_hang(struct stub_session *s)
{
	struct pollfd p[] = {{.fd = s->cancelled, .events = POLLIN},
	                     {.fd = s->stub->stop, .events = POLLIN},
	                     {.fd = s->fd, .events = POLLRDHUP}};
	while (poll(p, 3, -1) < 0)
		;
	uint64_t count;
	if (!p[0].revents || read(s->cancelled, &count, sizeof count) < 0)
		return false;
	stub_error(s, "ERROR", "57014");
	return true;
}

static bool stub_execute(struct stub_session *s, const char *sql)
{
	atomic_fetch_add(&s->stub->executed, 1);
	if (!strcmp(sql, "hang"))
		return stub_hang(s);
	if (!strcmp(sql, "die"))
		return false;
	if (!strcmp(sql, "terminated")) {
		stub_error(s, "FATAL", "57P01");
		stub_flush(s);
		return false;
	}
	if (!strcmp(sql, "conflict"))
		stub_error(s, "ERROR", "40001");
	else if (!strcmp(sql, "refused"))
		stub_error(s, "ERROR", "42501");
	else if (!strcmp(sql, "one"))
		stub_row(s, "1");
	else if (strcmp(sql, "none"))
		stub_row(s, sql);
	if (!s->failed)
		stub_put(s, 'C', "SELECT 1", 9);
	return true;
}

static unsigned stub_statement(struct stub_session *s, const char *name)
{
	for (unsigned i = 0; i < s->statements; i++)
		if (!strcmp(s->statement[i].name, name))
			return i;
	return s->statements;
}

static void stub_parse(struct stub_session *s, const char *body)
{
	const char *sql = body + strlen(body) + 1;
	unsigned i = *body ? stub_statement(s, body) : s->statements;
	if (i < s->statements) {
		stub_error(s, "ERROR", "42P05");
		return;
	}
	ck_assert_uint_lt(i, STUB_STATEMENTS);
	snprintf(s->statement[i].name, sizeof s->statement[i].name, "%s", body);
	snprintf(s->statement[i].sql, sizeof s->statement[i].sql, "%s", sql);
	s->statements++;
	stub_put(s, '1', NULL, 0);
}

static void stub_bind(struct stub_session *s, const char *body)
{
	const char *name = body + strlen(body) + 1;
	s->bound = stub_statement(s, name);
	if (s->bound == s->statements)
		stub_error(s, "ERROR", "26000");
	else
		stub_put(s, '2', NULL, 0);
}

static bool stub_message(struct stub_session *s, char type, const char *body)
{
	if (type == 'S') {
		s->failed = false;
		stub_ready(s);
	} else if (s->failed) {
		return true;
	} else if (type == 'P') {
		stub_parse(s, body);
	} else if (type == 'B') {
		stub_bind(s, body);
	} else if (type == 'D') {
		stub_columns(s);
	} else if (type == 'E') {
		return stub_execute(s, s->statement[s->bound].sql);
	}
	return type != 'X';
}

/* ---- connections --------------------------------------------------------------------- */

static bool stub_read(struct stub_session *s, void *to, size_t n)
{
	struct pollfd p[] = {{.fd = s->fd, .events = POLLIN},
	                     {.fd = s->stub->stop, .events = POLLIN}};
	for (size_t done = 0; done < n;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return false;
		ssize_t got = recv(s->fd, (char *)to + done, n - done, 0);
		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

static uint32_t stub_number(const char *p)
{
	uint32_t n;
	memcpy(&n, p, 4);
	return ntohl(n);
}

static void stub_cancel(struct stub *stub, unsigned pid)
{
	atomic_fetch_add(&stub->cancels, 1);
	pthread_mutex_lock(&stub->lock);
	for (unsigned i = 0; i < STUB_SESSIONS && stub->session[i]; i++)
		if (stub->session[i]->pid == pid)
			stub_raise(stub->session[i]->cancelled);
	pthread_mutex_unlock(&stub->lock);
}

/* False for what is not the beginning of a session. */
static bool stub_greet(struct stub_session *s)
{
	char head[4], body[STUB_MESSAGE], key[8] = {0};
	if (!stub_read(s, head, 4) || stub_number(head) - 4 > sizeof body ||
	    !stub_read(s, body, stub_number(head) - 4))
		return false;
	if (stub_number(body) == 80877102) {
		stub_cancel(s->stub, stub_number(body + 4));
		return false;
	}
	ck_assert_uint_eq(stub_number(body), 196608);
	while (atomic_load(&s->stub->silent))
		if (!stub_read(s, head, 1))
			return false;
	uint32_t pid = htonl(s->pid);
	memcpy(key, &pid, 4);
	stub_put(s, 'R', "\0\0\0\0", 4);
	stub_put(s, 'S', "client_encoding\0UTF8", 21);
	stub_put(s, 'S', "server_version\00015.0", 20);
	stub_put(s, 'K', key, 8);
	atomic_fetch_add(&s->stub->sessions, 1);
	stub_ready(s);
	return true;
}

static void *stub_serve(void *arg)
{
	struct stub_session *s = arg;
	char head[5], body[STUB_MESSAGE + 1];
	atomic_fetch_add(&s->stub->open, 1);
	bool on = stub_greet(s);
	while (on && stub_read(s, head, 5)) {
		size_t n = stub_number(head + 1) - 4;
		ck_assert_uint_le(n, STUB_MESSAGE);
		if (n && !stub_read(s, body, n))
			break;
		body[n] = '\0';
		on = stub_message(s, head[0], body);
	}
	atomic_fetch_sub(&s->stub->open, 1);
	shutdown(s->fd, SHUT_RDWR);
	return NULL;
}

static void *stub_accept(void *arg)
{
	struct stub *stub = arg;
	struct pollfd p[] = {{.fd = stub->listener, .events = POLLIN},
	                     {.fd = stub->stop, .events = POLLIN}};
	for (unsigned n = 0;; n++) {
		while (poll(p, 2, -1) < 0)
			;
		if (p[1].revents)
			return NULL;
		int fd = accept(stub->listener, NULL, NULL);
		ck_assert_int_ge(fd, 0);
		ck_assert_uint_lt(n, STUB_SESSIONS);
		struct stub_session *s = xcalloc(1, sizeof *s);
		s->stub = stub;
		s->fd = fd;
		s->pid = n + 1;
		s->cancelled = eventfd(0, EFD_CLOEXEC);
		pthread_mutex_lock(&stub->lock);
		stub->session[n] = s;
		pthread_mutex_unlock(&stub->lock);
		ck_assert_int_eq(pthread_create(&s->thread, NULL, stub_serve, s), 0);
	}
}

/* ---- life ---------------------------------------------------------------------------- */

/* `port` 0: any free one. */
static struct stub *stub_start(unsigned port)
{
	struct stub *stub = xcalloc(1, sizeof *stub);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	socklen_t len = sizeof a;
	int one = 1;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	stub->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(stub->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	ck_assert_int_eq(bind(stub->listener, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(stub->listener, 64), 0);
	ck_assert_int_eq(getsockname(stub->listener, (struct sockaddr *)&a, &len), 0);
	stub->port = ntohs(a.sin_port);
	snprintf(stub->url, sizeof stub->url,
	         "postgresql://test@127.0.0.1:%u/test?sslmode=disable&gssencmode=disable",
	         stub->port);
	stub->stop = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&stub->lock, NULL);
	ck_assert_int_eq(pthread_create(&stub->thread, NULL, stub_accept, stub), 0);
	return stub;
}

/* Ends every connection, as a server that is stopped does. */
static void stub_stop(struct stub **sp)
{
	struct stub *stub = *sp;
	*sp = NULL;
	stub_raise(stub->stop);
	pthread_join(stub->thread, NULL);
	close(stub->listener);
	for (unsigned i = 0; i < STUB_SESSIONS && stub->session[i]; i++) {
		struct stub_session *s = stub->session[i];
		pthread_join(s->thread, NULL);
		close(s->fd);
		close(s->cancelled);
		free(s);
	}
	close(stub->stop);
	pthread_mutex_destroy(&stub->lock);
	free(stub);
}

/* ---- waiting ------------------------------------------------------------------------- */

/* Polls a condition for ten seconds at most. */
#define WAIT_UNTIL(condition)                                                                      \
	do {                                                                                       \
		uint64_t until_ = clock_ms() + 10000;                                              \
		while (!(condition)) {                                                             \
			ck_assert_msg(clock_ms() < until_, "not in time: %s", #condition);         \
			poll(NULL, 0, 1);                                                          \
		}                                                                                  \
	} while (0)

#endif
