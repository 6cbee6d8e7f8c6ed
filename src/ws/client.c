#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "hub_impl.h"
#include "provost/auth.h"

/* ---- figures ------------------------------------------------------------------------- */

/* The last stands for all others. */
static const unsigned CODES[HUB_CODES] = {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009,
                                          1011, 1013, 4001, 4400, 4401, 4403, 4408, 4429};

unsigned client_code(size_t i)
{
	return CODES[i];
}

void count_close(struct hub *h, unsigned code)
{
	size_t i = 0;
	while (i < HUB_CODES - 1 && CODES[i] != code)
		i++;
	COUNT(h, closed[i], 1);
}

/* ---- deadlines ----------------------------------------------------------------------- */

void client_arm(struct hub *h, struct client *c)
{
	uint64_t at = c->state == CLIENT_OPEN ? UINT64_MAX : c->until_ms;
	if (client_is_open(c))
		at = MIN(at, MIN(c->next_ping_ms, c->expires_ms));
	if (client_is_open(c) && c->blocked)
		at = MIN(at, c->progress_ms + (uint64_t)h->options.stall_timeout_ms);
	wheel_arm(&h->wheel, &c->timer, at);
}

/* A tenth earlier or later, so that those who came together are not pinged together for ever. */
static uint64_t next_ping(const struct hub *h)
{
	uint64_t interval = (uint64_t)h->options.ping_interval_ms;
	return h->now_ms + interval - interval / 10 + jitter(interval / 5 + 1);
}

/* Its answer may have come while the hub had no time to read it. */
static bool has_unread(const struct client *c)
{
	char byte;
	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void heartbeat(struct hub *h, struct client *c)
{
	c->next_ping_ms = next_ping(h);
	/* A ping would wait behind what is not taken, which the stall timeout watches over: as long
	 * as something of that is taken the peer is there. */
	if (c->blocked) {
		c->pinged_ms = 0;
		return;
	}
	if (c->pinged_ms && c->heard_ms < c->pinged_ms && !has_unread(c)) {
		client_drop(h, c, WS_CODE_LOST);
		return;
	}
	c->pinged_ms = h->now_ms;
	client_put(h, c, message_ref(h->ping));
}

/* A hub that was late has yet to find out whether something would be taken by now. May drop it. */
static bool has_stalled(struct hub *h, struct client *c)
{
	const uint64_t stall_ms = (uint64_t)h->options.stall_timeout_ms;
	if (!client_is_open(c) || !c->blocked || h->now_ms < c->progress_ms + stall_ms)
		return false;
	client_flush(h, c);
	return client_is_open(c) && c->blocked && h->now_ms >= c->progress_ms + stall_ms;
}

void client_due(struct hub *h, struct client *c)
{
	if (!client_is_open(c) && h->now_ms >= c->until_ms) {
		client_drop(h, c, WS_CODE_LOST);
		return;
	}
	if (c->state == CLIENT_UNIDENTIFIED && h->now_ms >= c->until_ms) {
		client_close(h, c, WS_CODE_AUTH_TIMEOUT, "who you are was not said in time");
	} else if (has_stalled(h, c)) {
		COUNT(h, stalls, 1);
		client_close(h, c, WS_CODE_STALLED, "nothing was taken for too long");
	} else if (client_is_open(c) && h->now_ms >= c->expires_ms) {
		if (client_check(h, c)) /* by the wall clock it is not over yet */
			c->expires_ms = h->now_ms + 1000;
	} else if (client_is_open(c) && h->now_ms >= c->next_ping_ms) {
		heartbeat(h, c);
	}
	if (c->state != CLIENT_DEAD)
		client_arm(h, c);
}

/* ---- what is waited for -------------------------------------------------------------- */

static void set_events(struct hub *h, struct client *c)
{
	struct epoll_event e = {.events = (c->deaf ? 0 : EPOLLIN) | (c->blocked ? EPOLLOUT : 0),
	                        .data.ptr = c};
	ALWAYS(epoll_ctl(h->epoll_fd, EPOLL_CTL_MOD, c->fd, &e) == 0);
}

static void set_blocked(struct hub *h, struct client *c, bool blocked)
{
	if (c->blocked == blocked)
		return;
	c->blocked = blocked;
	set_events(h, c);
	if (blocked)
		client_arm(h, c);
}

static void set_deaf(struct hub *h, struct client *c, bool deaf)
{
	if (c->deaf == deaf)
		return;
	c->deaf = deaf;
	set_events(h, c);
}

static void want_flush(struct hub *h, struct client *c)
{
	if (c->to_flush || c->blocked)
		return;
	c->to_flush = true;
	TAILQ_INSERT_TAIL(&h->flush, c, flush);
}

/* ---- identities ---------------------------------------------------------------------- */

void client_set_expiry(struct hub *h, struct client *c)
{
	int64_t left_s = c->identity->expires_s == INT64_MAX
	                     ? INT64_MAX
	                     : c->identity->expires_s - (int64_t)time(NULL);
	c->expires_ms =
	    left_s > INT32_MAX ? UINT64_MAX : h->now_ms + (uint64_t)MAX(left_s, 0) * 1000;
	client_arm(h, c);
}

static void identified(struct hub *h, struct client *c)
{
	if (!c->unidentified)
		return;
	c->unidentified = false;
	COUNT(h, unidentified, -1);
	pthread_mutex_lock(&h->lock);
	h->reserved_unidentified--;
	pthread_mutex_unlock(&h->lock);
}

bool client_identify(struct hub *h, struct client *c, struct identity *i)
{
	c->identity = i;
	identified(h, c);
	int r = user_enter(h, c);
	if (r == -EDQUOT) {
		client_close(h, c, WS_CODE_LIMIT, "you have too many connections");
		return false;
	}
	c->session = r == 0 ? session_new(h, c) : NULL;
	if (!c->session) {
		client_close(h, c, WS_CODE_INTERNAL, "out of memory");
		return false;
	}
	c->state = CLIENT_OPEN;
	c->decoder.max = (uint64_t)h->options.max_message;
	client_set_expiry(h, c);
	return true;
}

void client_renew(struct hub *h, struct client *c, struct identity *i)
{
	identity_unref(&c->identity);
	identity_unref(&c->session->identity);
	c->identity = i;
	c->session->identity = identity_ref(i);
	client_set_expiry(h, c);
}

bool client_check(struct hub *h, struct client *c)
{
	const char *reason;
	if (!c->identity || auth_still_valid(h->auth, c->identity, time(NULL), &reason) == 0)
		return true;
	client_close(h, c, WS_CODE_UNAUTHENTICATED, reason);
	return false;
}

/* ---- putting ------------------------------------------------------------------------- */

void client_put(struct hub *h, struct client *c, struct message *m)
{
	if (!client_is_open(c)) {
		if (m)
			message_unref(m);
		return;
	}
	if (c->out.count == 0)
		c->progress_ms = h->now_ms;
	c->failed |= !m || outbox_push(&c->out, m) < 0;
	if (m)
		message_unref(m);
	want_flush(h, c);
}

void client_reply(struct hub *h, struct client *c, struct message *m)
{
	client_put(h, c, m);
	if (!c->echo && (c->out.replies > REPLIES_MAX || c->out.reply_bytes > REPLY_BYTES_MAX))
		client_close(h, c, WS_CODE_LIMIT, "too many replies are not taken");
}

static void fall_behind(struct hub *h, struct client *c)
{
	COUNT(h, dropped, outbox_drop(&c->out, KINDS_EVENTS));
	ops_resync(h, c);
	durable_owe(h, c);
}

void client_event(struct hub *h, struct client *c, struct message *m)
{
	if (c->state != CLIENT_OPEN)
		return;
	/* Whoever is going to look at everything anew will see this, too. */
	if (c->resync_waits) {
		COUNT(h, dropped, 1);
		return;
	}
	/* What is larger than that goes when nothing else waits. */
	if (c->out.bytes > 0 && (c->out.bytes + m->size > (size_t)h->options.backlog ||
	                         c->out.count - c->out.data >= BACKLOG_MESSAGES)) {
		COUNT(h, dropped, 1);
		fall_behind(h, c);
		return;
	}
	client_put(h, c, message_ref(m));
}

/* ---- closing ------------------------------------------------------------------------- */

/* From here on it is nobody's but the loop's: its rooms, its place among the user's sockets. */
static void let_go(struct hub *h, struct client *c)
{
	watches_free(h, c);
	if (c->session)
		session_leave(h, c->session);
	c->session = NULL;
	user_exit(h, c);
	COUNT(h, clients, -1);
}

/* `code` WS_CODE_NONE: a close without one. */
static struct message *close_message(unsigned code, const char *reason)
{
	char payload[WS_CONTROL_MAX];
	size_t n = MIN(strlen(reason), (size_t)WS_REASON_MAX);
	payload[0] = (char)(code >> 8);
	payload[1] = (char)code;
	memcpy(payload + 2, reason, n);
	return message_new(MESSAGE_CLOSE, WS_CLOSE, payload, code == WS_CODE_NONE ? 0 : n + 2);
}

static void say_close(struct hub *h, struct client *c, unsigned code, const char *reason)
{
	count_close(h, code);
	client_put(h, c, close_message(code, reason));
	let_go(h, c);
	c->state = CLIENT_CLOSING;
	c->until_ms = h->now_ms + CLOSE_MS;
	client_arm(h, c);
	if (c->said_close)
		set_deaf(h, c, true);
}

void client_close(struct hub *h, struct client *c, unsigned code, const char *reason)
{
	if (!client_is_open(c))
		return;
	/* Who floods, or takes nothing, is not waited for; what it has asked for is dropped. */
	bool harsh = code == WS_CODE_LIMIT || code == WS_CODE_STALLED;
	(void)outbox_drop(&c->out, harsh ? KINDS_ALL : KINDS_PASSING);
	c->resync_waits = false;
	c->said_close |= harsh;
	say_close(h, c, code, reason);
}

/* What has come cannot be understood: there will be no answer to our close that could be. */
static void fail(struct hub *h, struct client *c, unsigned code)
{
	c->said_close = true;
	if (client_is_open(c))
		client_close(h, c, code, "");
	else {
		set_deaf(h, c, true);
		want_flush(h, c); /* our close may have gone already */
	}
}

static void answer_close(struct hub *h, struct client *c, const struct ws_event *e)
{
	c->said_close = true;
	if (!client_is_open(c)) {
		want_flush(h, c); /* ours may have gone already */
		return;
	}
	(void)outbox_drop(&c->out, KINDS_PASSING);
	say_close(h, c, e->code, "");
}

/* Both have said close, or we do not wait for theirs. TCP is ended in the order that loses nothing:
 * a descriptor closed with bytes unread would reset what is on its way to the peer. */
static void drain(struct hub *h, struct client *c)
{
	c->state = CLIENT_DRAINING;
	(void)shutdown(c->fd, SHUT_WR);
	set_deaf(h, c, false);
}

void client_drop(struct hub *h, struct client *c, unsigned code)
{
	if (c->state == CLIENT_DEAD)
		return;
	if (client_is_open(c)) {
		count_close(h, code);
		let_go(h, c);
	}
	c->state = CLIENT_DEAD;
	/* Not before: who never said who it is, and does not answer the close, would else take the
	 * places of those who did. */
	identified(h, c);
	wheel_disarm(&h->wheel, &c->timer);
	address_exit(h, c);
	h->echoes -= c->echo;
	if (c->to_flush)
		TAILQ_REMOVE(&h->flush, c, flush);
	TAILQ_REMOVE(&h->clients, c, link);
	TAILQ_INSERT_TAIL(&h->dead, c, link);
	/* Closing would not be enough: somebody may still have another descriptor of the socket, as
	 * libmicrohttpd has for a moment, and events would go on naming what is freed. */
	(void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
	pthread_mutex_lock(&h->lock);
	h->reserved--;
	pthread_mutex_unlock(&h->lock);
}

/* Later than it was dropped: the turn's other events may still name it. */
void client_free(struct client *c)
{
	CHECK_MAGIC(c, CLIENT_MAGIC);
	ws_decoder_done(&c->decoder);
	outbox_done(&c->out);
	identity_unref(&c->identity);
	c->magic = 0;
	free(c);
}

/* ---- sending ------------------------------------------------------------------------- */

static ssize_t send_some(struct client *c, size_t *ret_asked)
{
	struct iovec iov[IOV_MAX_USED];
	uint32_t n = MIN(c->out.count, (uint32_t)IOV_MAX_USED);
	size_t skip = c->out.sent;
	*ret_asked = 0;
	for (uint32_t i = 0; i < n; i++, skip = 0) {
		struct message *m = outbox_at(&c->out, i);
		iov[i] = (struct iovec){m->frame + skip, m->size - skip};
		*ret_asked += iov[i].iov_len;
	}
	if (n == 1) /* cheaper by what the kernel need not copy */
		return send(c->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
	return sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void sent(struct hub *h, struct client *c, size_t n)
{
	uint32_t before = c->out.count;
	if (outbox_sent(&c->out, n))
		c->resync_waits = false;
	c->progress_ms = h->now_ms;
	h->sent = true;
	h->batch = MAX(h->batch, before - c->out.count);
	if (c->durable == DURABLE_OWED)
		durable_room(h, c);
	COUNT(h, messages_out, before - c->out.count);
	COUNT(h, bytes_out, n);
}

/* All that waits, or as much as the kernel takes. False: the socket is gone. */
static bool send_all(struct hub *h, struct client *c)
{
	while (c->out.count > 0) {
		size_t asked;
		ssize_t n = send_some(c, &asked);
		COUNT(h, sends, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS &&
		    errno != ENOMEM)
			return false;
		if (n > 0)
			sent(h, c, (size_t)n);
		/* Less than asked: the next call would only say EAGAIN. */
		if (n < 0 || (size_t)n < asked) {
			set_blocked(h, c, true);
			return true;
		}
	}
	set_blocked(h, c, false);
	return true;
}

void client_send_now(struct hub *h, struct client *c)
{
	if (c->blocked || c->failed)
		return;
	c->broken = !send_all(h, c);
	/* Who wants more is seen to by its flush. */
	if (c->broken || !c->to_flush || c->wants)
		return;
	c->to_flush = false;
	TAILQ_REMOVE(&h->flush, c, flush);
}

void client_flush(struct hub *h, struct client *c)
{
	if (c->failed) {
		c->failed = false;
		client_close(h, c, WS_CODE_INTERNAL, "out of memory");
	}
	if (c->broken || !send_all(h, c)) {
		client_drop(h, c, WS_CODE_LOST);
		return;
	}
	if (c->wants && !c->blocked)
		watches_pour(h, c);
	if (c->echo && client_is_open(c))
		set_deaf(h, c, c->out.count > 0);
	if (c->state == CLIENT_CLOSING && c->out.count == 0 && c->said_close)
		drain(h, c);
}

/* ---- reading ------------------------------------------------------------------------- */

static bool may_send(struct hub *h, struct client *c)
{
	uint64_t more = (h->now_ms - c->refilled_ms) * ALLOWANCE_PER_S / 1000;
	if (more > 0) {
		c->allowance = (uint32_t)MIN(c->allowance + more, (uint64_t)ALLOWANCE);
		c->refilled_ms = h->now_ms;
	}
	if (c->allowance == 0)
		return false;
	c->allowance--;
	return true;
}

static void take_message(struct hub *h, struct client *c, const struct ws_event *e)
{
	if (c->echo)
		client_reply(h, c, message_new(MESSAGE_REPLY, e->opcode, e->data, e->len));
	else if (e->opcode == WS_BINARY)
		client_close(h, c, WS_CODE_UNSUPPORTED, "messages are JSON text");
	else
		ops_take(h, c, e->data, e->len);
}

static void take(struct hub *h, struct client *c, const struct ws_event *e)
{
	COUNT(h, messages_in, 1);
	if (e->opcode == WS_CLOSE) {
		answer_close(h, c, e);
		return;
	}
	if (!client_is_open(c))
		return;
	if (!c->echo && !may_send(h, c)) {
		client_close(h, c, WS_CODE_LIMIT, "too many messages");
		return;
	}
	if (e->opcode == WS_PING)
		client_reply(h, c, message_new(MESSAGE_REPLY, WS_PONG, e->data, e->len));
	else if (e->opcode != WS_PONG)
		take_message(h, c, e);
}

static void feed(struct hub *h, struct client *c, char *data, size_t n)
{
	struct ws_event e;
	int r;
	c->heard_ms = h->now_ms;
	COUNT(h, bytes_in, n);
	/* Behind a close there is nothing more to be understood. */
	while (!c->said_close && (r = ws_decode(&c->decoder, &data, &n, &e)) != 0) {
		if (r < 0) {
			fail(h, c, ws_code_of_error(r));
			break;
		}
		take(h, c, &e);
	}
}

/* Without copying it. */
static void discard(struct hub *h, struct client *c)
{
	ssize_t n = recv(c->fd, NULL, DISCARD_MAX, MSG_TRUNC | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		c->discarded += (uint32_t)n;
	if (n <= 0 || c->discarded > DISCARD_MAX)
		client_drop(h, c, WS_CODE_LOST);
}

void client_readable(struct hub *h, struct client *c)
{
	if (c->state == CLIENT_DRAINING) {
		discard(h, c);
		return;
	}
	ssize_t n = recv(c->fd, h->input, c->echo ? READ_ECHO_MAX : READ_MAX, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_drop(h, c, WS_CODE_LOST);
		return;
	}
	feed(h, c, h->input, (size_t)n);
	if (c->echo)
		client_flush(h, c);
}

/* ---- adopting ------------------------------------------------------------------------ */

static struct client *client_new(struct hub *h, const struct hub_socket *s)
{
	struct client *c = calloc(1, sizeof *c);
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
	if (!c || epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, s->fd, &e) < 0) {
		free(c);
		return NULL;
	}
	c->magic = CLIENT_MAGIC;
	c->fd = s->fd;
	TAILQ_INIT(&c->watches);
	TAILQ_INIT(&c->wanted);
	c->number = ++h->client_number;
	c->echo = s->echo;
	c->unidentified = !s->echo && !s->identity;
	c->state = s->echo ? CLIENT_OPEN : CLIENT_UNIDENTIFIED;
	c->allowance = ALLOWANCE;
	c->refilled_ms = c->heard_ms = c->progress_ms = h->now_ms;
	c->next_ping_ms = h->now_ms + (uint64_t)h->options.ping_interval_ms / 2 +
	                  jitter((uint64_t)h->options.ping_interval_ms / 2);
	c->until_ms = h->now_ms + (uint64_t)h->options.auth_timeout_ms;
	c->expires_ms = UINT64_MAX;
	ws_decoder_init(&c->decoder, s->echo ? (uint64_t)HUB_ECHO_MAX
	                                     : MIN((uint64_t)HUB_UNIDENTIFIED_MESSAGE,
	                                           (uint64_t)h->options.max_message));
	return c;
}

static void welcome(struct hub *h, struct client *c, struct identity *i)
{
	if (c->echo && h->echoes > ECHOES_MAX) {
		client_close(h, c, WS_CODE_LIMIT, "too many are echoed already");
		return;
	}
	if (address_enter(h, c) < 0) {
		identity_unref(&i);
		client_close(h, c, WS_CODE_LIMIT, "too many connections from this address");
		return;
	}
	/* Between the handshake and here it may have been revoked. */
	if (i && client_identify(h, c, i) && client_check(h, c))
		ops_hello(h, c);
}

void client_adopt(struct hub *h, const struct hub_socket *s)
{
	static const int one = 1, unsent = UNSENT_MAX;
	struct client *c = client_new(h, s);
	if (!c) {
		struct identity *i = s->identity;
		pthread_mutex_lock(&h->lock);
		h->reserved--;
		h->reserved_unidentified -= !s->echo && !i;
		pthread_mutex_unlock(&h->lock);
		close(s->fd);
		identity_unref(&i);
		return;
	}
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* Else the kernel would queue megabytes for who does not read, before we hear of it. */
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
	TAILQ_INSERT_TAIL(&h->clients, c, link);
	COUNT(h, clients, 1);
	COUNT(h, adopted, 1);
	COUNT(h, unidentified, c->unidentified);
	h->echoes += c->echo;
	client_arm(h, c);
	welcome(h, c, s->identity);
	if (s->extra_len > 0 && c->state != CLIENT_DEAD)
		feed(h, c, (char *)(uintptr_t)s->extra, s->extra_len);
}
