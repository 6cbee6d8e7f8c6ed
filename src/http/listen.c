#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "http_impl.h"

enum { BACKLOG = 4096 }; /* the kernel takes the smaller of this and net.core.somaxconn */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static int parse_port(const char *s, in_port_t *ret)
{
	unsigned long n = 0;
	if (!*s || strlen(s) > 5)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		n = n * 10 + (unsigned long)(*s - '0');
	}
	if (n > 65535)
		return -EINVAL;
	*ret = htons((uint16_t)n);
	return 0;
}

/* `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`. Names are not resolved: where a server listens
 * must not depend on what a resolver says. */
static int parse(const char *listen, union address *ret, socklen_t *ret_len)
{
	char host[64];
	const char *colon = strrchr(listen, ':');
	union address a = {0};
	in_port_t port;
	if (!colon || (size_t)(colon - listen) >= sizeof host || parse_port(colon + 1, &port) < 0)
		return -EINVAL;
	snprintf(host, sizeof host, "%.*s", (int)(colon - listen), listen);
	size_t n = strlen(host);
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = port;
		if (inet_pton(AF_INET6, host + 1, &a.v6.sin6_addr) != 1)
			return -EINVAL;
		*ret_len = sizeof a.v6;
	} else {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = port;
		if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1",
		              &a.v4.sin_addr) != 1)
			return -EINVAL;
		*ret_len = sizeof a.v4;
	}
	*ret = a;
	return 0;
}

static bool is_loopback(const union address *a)
{
	if (a->any.sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
	return ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
}

int http_listen_check(const char *listen)
{
	union address a;
	socklen_t len;
	int r = parse(listen, &a, &len);
	if (r < 0)
		return r;
	return is_loopback(&a) ? 0 : -EPERM;
}

int listen_open(const char *listen_at, struct errors *errs)
{
	union address a;
	socklen_t len;
	int one = 1;
	int r = parse(listen_at, &a, &len);
	if (r < 0) {
		errors_add(errs, NULL, 0, "cannot listen on \"%s\": not an address with a port",
		           listen_at);
		return r;
	}
	_cleanup_close_ int fd =
	    socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
	    bind(fd, &a.any, len) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		errors_add(errs, NULL, 0, "cannot listen on %s: %s%s", listen_at, strerror(-r),
		           r == -EADDRINUSE ? "; stop what listens there, or set [http] listen "
		                              "(PROVOST_HTTP_LISTEN) to another port"
		                            : "");
		return r;
	}
	/* Inherited by accepted sockets. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int ret = fd;
	fd = -1;
	return ret;
}
