#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "durable.h"

/* ---- users --------------------------------------------------------------------------- */

struct user *user_get(struct hub *h, const char *subject)
{
	size_t n = strlen(subject);
	struct names_node *node = names_find(&h->users, subject, n);
	if (node)
		return (struct user *)node;
	struct user *u = calloc(1, sizeof *u + n + 1);
	if (!u)
		return NULL;
	_Static_assert(offsetof(struct user, node) == 0, "a node is its user");
	memcpy(u->subject, subject, n);
	TAILQ_INIT(&u->clients);
	TAILQ_INIT(&u->left);
	TAILQ_INIT(&u->everyone);
	STAILQ_INIT(&u->held);
	names_add(&h->users, &u->node, u->subject, n);
	return u;
}

void user_put(struct hub *h, struct user *u)
{
	if (u->connected > 0 || u->waiting > 0)
		return;
	names_remove(&h->users, &u->node);
	durable_user_done(h, u);
	free(u);
}

/* Where callers are not identified, everybody is the same. */
static bool is_counted(const struct identity *i)
{
	return i->kind != IDENTITY_API_KEY && i->kind != IDENTITY_NONE;
}

int user_enter(struct hub *h, struct client *c)
{
	const struct hub_options *o = &h->options;
	struct user *u = user_get(h, c->identity->subject);
	if (!u)
		return -ENOMEM;
	bool counted = is_counted(c->identity);
	if (counted && o->max_per_user && u->counted >= o->max_per_user &&
	    o->per_user_policy == HUB_REJECT) {
		user_put(h, u);
		return -EDQUOT;
	}
	c->user = u;
	TAILQ_INSERT_TAIL(&u->everyone, c, of_subject);
	if (u->connected++ == 0)
		COUNT(h, users, 1);
	c->counted = counted;
	if (!counted)
		return 0;
	TAILQ_INSERT_TAIL(&u->clients, c, of_user);
	u->counted++;
	while (o->max_per_user && u->counted > o->max_per_user)
		client_close(h, TAILQ_FIRST(&u->clients), WS_CODE_REPLACED,
		             "replaced by a newer connection");
	return 0;
}

void user_exit(struct hub *h, struct client *c)
{
	struct user *u = c->user;
	if (!u)
		return;
	c->user = NULL;
	c->durable = DURABLE_NONE;
	TAILQ_REMOVE(&u->everyone, c, of_subject);
	if (c->counted) {
		TAILQ_REMOVE(&u->clients, c, of_user);
		u->counted--;
		c->counted = false;
	}
	if (--u->connected == 0)
		COUNT(h, users, -1);
	user_put(h, u);
}

/* ---- addresses ----------------------------------------------------------------------- */

/* IPv4 as IPv6 maps it. False: it is neither. */
static bool read_address(int fd, uint8_t out[16])
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof a;
	if (getpeername(fd, (struct sockaddr *)&a, &len) < 0)
		return false;
	memset(out, 0, 16);
	if (a.ss_family == AF_INET6) {
		memcpy(out, &((struct sockaddr_in6 *)&a)->sin6_addr, 16);
	} else if (a.ss_family == AF_INET) {
		out[10] = out[11] = 0xFF;
		memcpy(out + 12, &((struct sockaddr_in *)&a)->sin_addr, 4);
	} else {
		return false;
	}
	return true;
}

int address_enter(struct hub *h, struct client *c)
{
	uint8_t bytes[16];
	if (!read_address(c->fd, bytes))
		return 0;
	_Static_assert(offsetof(struct address, node) == 0, "a node is its address");
	struct address *a = (struct address *)names_find(&h->addresses, bytes, sizeof bytes);
	if (a && h->options.max_per_address && a->count >= h->options.max_per_address)
		return -EDQUOT;
	if (!a) {
		a = calloc(1, sizeof *a);
		if (!a)
			return -ENOMEM;
		memcpy(a->bytes, bytes, sizeof bytes);
		names_add(&h->addresses, &a->node, a->bytes, sizeof a->bytes);
	}
	a->count++;
	c->address = a;
	return 0;
}

void address_exit(struct hub *h, struct client *c)
{
	struct address *a = c->address;
	c->address = NULL;
	if (!a || --a->count > 0)
		return;
	names_remove(&h->addresses, &a->node);
	free(a);
}
