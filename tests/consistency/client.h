/*
 * client: one keep-alive HTTP/1.1 connection, used by one thread, which waits for each answer.
 */
#ifndef CONSISTENCY_CLIENT_H
#define CONSISTENCY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { CLIENT_HEAD_MAX = 16384, CLIENT_PATIENCE_S = 20 };

struct client {
	unsigned short port;
	int fd; /* -1: not connected */
	char *buffer;
	size_t size;
};

struct answer {
	int status;
	bool hit; /* by Cache-Status */
	char cache[64];
	const char *body; /* ends with a NUL; the client's until it asks again */
	size_t body_len;
};

void client_init(struct client *c, unsigned short port);
void client_done(struct client *c);
/* Connects when it is not connected. `body` may be NULL, else it is JSON. 0; or -1, when no answer
 * came: whether the request was received is not known, unless `*ret_sent` is false. */
int client_ask(struct client *c, const char *method, const char *path, const char *body,
               struct answer *ret, bool *ret_sent);

#endif
