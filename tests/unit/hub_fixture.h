/*
 * hub_fixture: clients of a hub, which are socket pairs, and what they say and hear.
 *
 * Authentication is off: whoever is not unknown is `anonymous`. Any thread may be a client.
 */
#ifndef PROVOST_TESTS_HUB_FIXTURE_H
#define PROVOST_TESTS_HUB_FIXTURE_H

#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "wait_until.h"

#include "provost/auth.h"
#include "provost/hub.h"

static struct auth *auth;

static void setup_auth(void)
{
	struct auth_options o;
	_cleanup_errors_ struct errors *errs = errors_new();
	auth = auth_new();
	auth_options_init(&o);
	o.mode = AUTH_NONE;
	ck_assert_int_eq(auth_configure(auth, &o, errs, NULL), 0);
	auth_options_done(&o);
}

static void teardown_auth(void)
{
	auth_free(&auth);
}

static struct identity *anybody(void)
{
	struct identity *i = NULL;
	const char *reason;
	ck_assert_int_eq(auth_identify(auth, &(struct credentials){0}, time(NULL), &i, &reason), 0);
	return i;
}

/* A new client, who is unknown when `i` is NULL. `room`: bytes that its socket takes before it is
 * read; 0: as it comes. -1: it was refused, or the hub does not run. */
static int adopt_with(struct hub *h, struct identity *i, int room)
{
	int pair[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	if (room)
		ck_assert_int_eq(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
	if (hub_reserve(h, i) < 0) {
		identity_unref(&i);
		close(pair[0]);
		close(pair[1]);
		return -1;
	}
	(void)hub_adopt(h, &(struct hub_socket){.fd = pair[0], .identity = i});
	return pair[1];
}

static int adopt(struct hub *h)
{
	return adopt_with(h, anybody(), 0);
}

/* A frame, masked with zeros. False: the hub has closed the socket. */
__attribute__((unused)) static bool may_say(int fd, const char *text)
{
	char frame[6 + 125] = {(char)0x81};
	size_t n = strlen(text);
	ck_assert_uint_le(n, 125);
	frame[1] = (char)(0x80 | n);
	memcpy(frame + 6, text, n);
	return send(fd, frame, n + 6, MSG_NOSIGNAL) == (ssize_t)(n + 6);
}

__attribute__((unused)) static void say(int fd, const char *text)
{
	ck_assert(may_say(fd, text));
}

/* Reads until `text` has come, and not a byte more. False: it does not come within a minute, or the
 * hub has closed the socket. */
__attribute__((unused)) static bool hears(int fd, const char *text)
{
	char got[16384];
	size_t len = strlen(text), kept = 0; /* of what was read: the beginning of it, perhaps */
	uint64_t now, until = clock_ms() + PATIENCE_MS;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		now = clock_ms();
		if (now >= until || poll(&p, 1, (int)(until - now)) <= 0)
			return false;
		ssize_t n = recv(fd, got + kept, sizeof got - kept, MSG_PEEK);
		if (n <= 0)
			return false;
		const char *found = memmem(got, kept + (size_t)n, text, len);
		size_t all = found ? (size_t)(found - got) + len : kept + (size_t)n;
		ck_assert_int_eq(recv(fd, got + kept, all - kept, 0), (ssize_t)(all - kept));
		if (found)
			return true;
		kept = MIN(all, len - 1);
		memmove(got, got + all - kept, kept);
	}
}

#endif
