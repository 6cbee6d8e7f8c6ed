/*
 * Many WebSockets of one server: connects, joins, counts, checks every frame, and says how long
 * events took.
 *
 *   ws_load PORT CLIENTS ROOM SECONDS [DEAF [FLOODING [TOKEN]]]
 *
 * Clients come from several loopback addresses. Of the first, DEAF never read and FLOODING send
 * pings as fast as they are taken; figures are the others'. An event whose first key is a number is
 * taken to have been committed at that many microseconds of the day's clock. Prints `ready` once
 * all have joined, and at the end one line of JSON. Exits 1 if a frame was wrong, or a client that
 * did nothing wrong was closed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "provost/base.h"
#include "provost/ws.h"

enum {
	PER_ADDRESS = 5000,
	READ_SIZE = 64 << 10,
	KEPT = 16 << 10, /* of a frame that has come in part */
	SAMPLES = 8 << 20,
	DEAF_BUFFER = 4 << 10,
	JOINED_MS = 60000,
};

enum state { HANDSHAKE, JOINING, JOINED, GONE };
enum kind { GOOD, DEAF, FLOODING };

struct one {
	int fd;
	enum state state;
	enum kind kind;
	size_t kept;
	unsigned code; /* of the close that came */
	char *part;    /* KEPT bytes, while it is needed */
};

static struct one *all;
static unsigned clients, deaf, flooding, joined, gone, gone_good;
static const char *room, *token;
static int epoll_fd;
static uint64_t frames, events, resyncs, wrong, bytes;
static uint32_t *sample; /* microseconds */
static size_t samples;
static unsigned codes[5000];

_noreturn_ static void die(const char *what)
{
	fprintf(stderr, "ws_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t day_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static bool send_frame(struct one *c, enum ws_opcode opcode, const char *text, size_t n)
{
	char frame[300];
	ALWAYS(n < 126);
	frame[0] = (char)(0x80 | opcode);
	frame[1] = (char)(0x80 | n);
	memset(frame + 2, 0, 4);
	memcpy(frame + 6, text, n);
	return send(c->fd, frame, n + 6, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(n + 6);
}

static void end(struct one *c)
{
	if (c->state == GONE)
		return;
	gone++;
	gone_good += c->kind == GOOD;
	codes[c->code < ELEMENTSOF(codes) ? c->code : 0]++;
	c->state = GONE;
	close(c->fd);
	free(c->part);
	c->part = NULL;
}

static void watch(struct one *c, uint32_t what)
{
	struct epoll_event e = {.events = what, .data.ptr = c};
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void on_joined(struct one *c)
{
	c->state = JOINED;
	joined++;
	if (c->kind == DEAF)
		watch(c, 0);
	else if (c->kind == FLOODING)
		watch(c, EPOLLIN | EPOLLOUT);
}

/* ---- frames -------------------------------------------------------------------------- */

static void take_event(struct one *c, const char *p, size_t n)
{
	static const char keys[] = "\"keys\":[\"";
	const char *at = memmem(p, n, keys, sizeof keys - 1);
	uint64_t now = day_us(), sent = at ? strtoull(at + sizeof keys - 1, NULL, 10) : 0;
	events++;
	if (c->kind == GOOD && sent && samples < SAMPLES)
		sample[samples++] = (uint32_t)MIN(now - sent, (uint64_t)UINT32_MAX);
}

static bool begins(const char *p, size_t n, const char *with)
{
	return n >= strlen(with) && !memcmp(p, with, strlen(with));
}

static void take_text(struct one *c, const char *p, size_t n)
{
	if (n < 2 || p[0] != '{' || p[n - 1] != '}' || utf8_length(p, n) < 0)
		wrong++;
	else if (begins(p, n, "{\"ev\":\"change\""))
		take_event(c, p, n);
	else if (begins(p, n, "{\"ev\":\"resync\""))
		resyncs++;
	else if (begins(p, n, "{\"ev\":\"ok\"") && c->state == JOINING)
		on_joined(c);
}

static void take_frame(struct one *c, unsigned first, const char *p, size_t n)
{
	frames++;
	if (first == (0x80 | WS_TEXT))
		take_text(c, p, n);
	else if (first == (0x80 | WS_PING))
		(void)send_frame(c, WS_PONG, p, n);
	else if (first == (0x80 | WS_CLOSE))
		c->code = n >= 2 ? (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1] : 1005;
	else if (first != (0x80 | WS_PONG))
		wrong++;
}

/* What is whole; returns how many bytes that was. */
static size_t take_frames(struct one *c, const char *p, size_t n)
{
	size_t at = 0;
	while (n - at >= 2) {
		const unsigned char *h = (const unsigned char *)p + at;
		size_t head = h[1] == 126 ? 4 : 2;
		if (h[1] > 126 || n - at < head) { /* nothing is that large, nor masked */
			wrong += h[1] > 126;
			break;
		}
		size_t len = h[1] == 126 ? (size_t)(h[2] << 8 | h[3]) : h[1];
		if (n - at < head + len)
			break;
		take_frame(c, h[0], p + at + head, len);
		at += head + len;
	}
	return at;
}

/* ---- sockets ------------------------------------------------------------------------- */

static void say_hello(struct one *c, unsigned port)
{
	char text[2048];
	int n = snprintf(
	    text, sizeof text,
	    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: "
	    "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
	    "dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s\r\n",
	    port, token ? "Authorization: Bearer " : "", token ? token : "", token ? "\r\n" : "");
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		die("send");
}

static void say_join(struct one *c)
{
	char text[120];
	int n = snprintf(text, sizeof text, "{\"op\":\"join\",\"room\":\"%s\",\"id\":1}", room);
	c->state = JOINING;
	(void)send_frame(c, WS_TEXT, text, (size_t)n);
}

static size_t take_handshake(struct one *c, const char *p, size_t n)
{
	const char *end_of_head = memmem(p, n, "\r\n\r\n", 4);
	if (!end_of_head)
		return 0;
	if (!begins(p, n, "HTTP/1.1 101 ")) {
		fprintf(stderr, "ws_load: refused: %.60s\n", p);
		exit(1);
	}
	say_join(c);
	return (size_t)(end_of_head - p) + 4;
}

static void take(struct one *c, char *p, size_t n)
{
	size_t done = c->state == HANDSHAKE ? take_handshake(c, p, n) : 0;
	if (c->state != HANDSHAKE)
		done += take_frames(c, p + done, n - done);
	c->kept = n - done;
	if (c->kept > KEPT)
		die("a frame is too large");
	if (c->kept && !c->part)
		c->part = xcalloc(KEPT, 1);
	if (c->kept)
		memcpy(c->part, p + done, c->kept);
	else {
		free(c->part);
		c->part = NULL;
	}
}

static void on_readable(struct one *c)
{
	static char buffer[KEPT + READ_SIZE];
	if (c->kept)
		memcpy(buffer, c->part, c->kept);
	ssize_t n = recv(c->fd, buffer + c->kept, READ_SIZE, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end(c);
		return;
	}
	bytes += (uint64_t)n;
	take(c, buffer, c->kept + (size_t)n);
}

static void flood(struct one *c)
{
	char pings[6 * 500];
	for (size_t i = 0; i < sizeof pings; i += 6)
		memcpy(pings + i, "\x89\x80\0\0\0\0", 6);
	ssize_t n = send(c->fd, pings, sizeof pings, MSG_NOSIGNAL | MSG_DONTWAIT);
	/* Half a frame would be another matter than a flood. */
	if (n >= 0 && n % 6)
		(void)send(c->fd, pings + n % 6, 6 - (size_t)n % 6, MSG_NOSIGNAL);
}

static void open_all(unsigned port)
{
	for (unsigned i = 0; i < clients; i++) {
		struct one *c = &all[i];
		struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
		from.sin_addr.s_addr = htonl(0x7F000002 + i / PER_ADDRESS);
		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		to.sin_port = htons((uint16_t)port);
		int small = DEAF_BUFFER;
		c->kind = i < deaf ? DEAF : i < deaf + flooding ? FLOODING : GOOD;
		c->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (c->kind == DEAF)
			(void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
		if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0 ||
		    connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0)
			die("connect");
		struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
		say_hello(c, port);
	}
}

static void poll_once(int ms)
{
	struct epoll_event e[512];
	int n = epoll_wait(epoll_fd, e, 512, ms);
	for (int i = 0; i < n; i++) {
		struct one *c = e[i].data.ptr;
		if (c->state != GONE && e[i].events & EPOLLOUT)
			flood(c);
		if (c->state != GONE && e[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
			if (c->kind == DEAF && c->state == JOINED)
				end(c);
			else
				on_readable(c);
		}
	}
}

/* ---- figures ------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static uint32_t percentile(double p)
{
	return samples ? sample[MIN((size_t)(p / 100 * (double)samples), samples - 1)] : 0;
}

static void print(void)
{
	qsort(sample, samples, sizeof *sample, by_value);
	printf("{\"clients\":%u,\"frames\":%llu,\"events\":%llu,\"resyncs\":%llu,\"wrong\":%llu,"
	       "\"bytes\":%llu,"
	       "\"gone\":%u,\"goneGood\":%u,\"us\":{\"samples\":%zu,\"p50\":%u,\"p90\":%u,\"p99\":%"
	       "u,\"max\":%u},"
	       "\"codes\":{",
	       clients, (unsigned long long)frames, (unsigned long long)events,
	       (unsigned long long)resyncs, (unsigned long long)wrong, (unsigned long long)bytes,
	       gone, gone_good, samples, percentile(50), percentile(90), percentile(99),
	       percentile(100));
	const char *comma = "";
	for (unsigned i = 0; i < ELEMENTSOF(codes); i++) {
		if (!codes[i])
			continue;
		printf("%s\"%u\":%u", comma, i, codes[i]);
		comma = ",";
	}
	printf("}}\n");
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	if (argc < 5) {
		fprintf(stderr,
		        "usage: ws_load PORT CLIENTS ROOM SECONDS [DEAF [FLOODING [TOKEN]]]\n");
		return 2;
	}
	clients = (unsigned)atoi(argv[2]);
	room = argv[3];
	deaf = argc > 5 ? (unsigned)atoi(argv[5]) : 0;
	flooding = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
	token = argc > 7 ? argv[7] : NULL;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	signal(SIGPIPE, SIG_IGN);
	all = xcalloc(clients, sizeof *all);
	sample = xcalloc(SAMPLES, sizeof *sample);
	epoll_fd = epoll_create1(0);
	open_all((unsigned)atoi(argv[1]));
	uint64_t until = clock_ms() + JOINED_MS;
	while (joined < clients && clock_ms() < until)
		poll_once(100);
	printf("ready %u\n", joined);
	fflush(stdout);
	until = clock_ms() + (uint64_t)(atof(argv[4]) * 1000);
	while (clock_ms() < until)
		poll_once(100);
	print();
	return wrong > 0 || gone_good > 0 || joined < clients;
}
