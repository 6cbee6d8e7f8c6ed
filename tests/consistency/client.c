#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

void client_init(struct client *c, unsigned short port)
{
	*c = (struct client){.port = port, .fd = -1, .size = 65536};
	c->buffer = malloc(c->size);
	if (!c->buffer)
		abort();
}

static void disconnect(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void client_done(struct client *c)
{
	disconnect(c);
	free(c->buffer);
	c->buffer = NULL;
}

static int reconnect(struct client *c)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(c->port)};
	struct timeval patience = {.tv_sec = CLIENT_PATIENCE_S};
	int one = 1;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	disconnect(c);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -1;
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(c->fd, (struct sockaddr *)&to, sizeof to) == 0)
		return 0;
	disconnect(c);
	return -1;
}

static int send_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return -1;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

/* Makes room for a NUL behind what is there. */
static int receive(struct client *c, size_t *have)
{
	if (*have + 2 > c->size) {
		c->size *= 2;
		c->buffer = realloc(c->buffer, c->size);
		if (!c->buffer)
			abort();
	}
	ssize_t k;
	do
		k = recv(c->fd, c->buffer + *have, c->size - *have - 1, 0);
	while (k < 0 && errno == EINTR);
	if (k <= 0)
		return -1;
	*have += (size_t)k;
	c->buffer[*have] = '\0';
	return 0;
}

static const char *field(const char *head, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
		if (!strncasecmp(p + 2, name, n) && p[2 + n] == ':')
			return p + 2 + n + 1 + strspn(p + 2 + n + 1, " ");
	return NULL;
}

/* Takes a head apart that ends with a NUL. */
static int read_head(const char *head, struct answer *ret, size_t *ret_length, bool *ret_close)
{
	const char *length = field(head, "Content-Length"), *cache = field(head, "Cache-Status");
	const char *connection = field(head, "Connection");
	if (sscanf(head, "HTTP/1.1 %d", &ret->status) != 1)
		return -1;
	*ret_length = length ? strtoul(length, NULL, 10) : 0;
	*ret_close = connection && !strncasecmp(connection, "close", 5);
	ret->cache[0] = '\0';
	if (cache)
		snprintf(ret->cache, sizeof ret->cache, "%.*s", (int)strcspn(cache, "\r"), cache);
	ret->hit = strstr(ret->cache, "; hit") != NULL;
	return 0;
}

static int read_answer(struct client *c, struct answer *ret)
{
	size_t have = 0, length;
	char *end = NULL;
	bool closes;
	c->buffer[0] = '\0';
	while (!(end = strstr(c->buffer, "\r\n\r\n")))
		if (have > CLIENT_HEAD_MAX || receive(c, &have) < 0)
			return -1;
	*end = '\0';
	size_t head = (size_t)(end - c->buffer) + 4;
	if (read_head(c->buffer, ret, &length, &closes) < 0)
		return -1;
	while (have < head + length)
		if (receive(c, &have) < 0)
			return -1;
	ret->body = c->buffer + head;
	ret->body_len = length;
	c->buffer[head + length] = '\0';
	if (closes)
		disconnect(c);
	return 0;
}

int client_ask(struct client *c, const char *method, const char *path, const char *body,
               struct answer *ret, bool *ret_sent)
{
	char head[4096];
	*ret_sent = false;
	if (c->fd < 0 && reconnect(c) < 0)
		return -1;
	int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s", method,
	                 path, (unsigned)c->port, body ? "" : "\r\n");
	if (n < 0 || (size_t)n >= sizeof head)
		abort();
	*ret_sent = true;
	if (body) {
		char *whole;
		n = asprintf(&whole,
		             "%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		             head, strlen(body), body);
		if (n < 0)
			abort();
		n = send_all(c->fd, whole, (size_t)n);
		free(whole);
	} else {
		n = send_all(c->fd, head, (size_t)n);
	}
	if (n == 0 && read_answer(c, ret) == 0)
		return 0;
	disconnect(c);
	return -1;
}
