#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "hub_impl.h"

/* ---- the mailbox --------------------------------------------------------------------- */

void hub_mail_free(struct mail *m)
{
	if (m->kind == MAIL_CONFIGURE)
		hub_options_done(&m->options);
	free(m);
}

void hub_wake(struct hub *h)
{
	const uint64_t one = 1;
	(void)!write(h->wake_fd, &one, sizeof one); /* full: it is awake */
}

/* Sockets, settings and acknowledgements are bounded elsewhere, and whoever loads tries again. */
int hub_post(struct hub *h, struct mail *m)
{
	int r = 0;
	bool first = false;
	bool told = m->kind == MAIL_CHANGE || m->kind == MAIL_RESYNC || m->kind == MAIL_EVENT;
	bool bounded = told || m->kind == MAIL_KEPT;
	pthread_mutex_lock(&h->lock);
	if (!h->running) {
		r = -ESHUTDOWN;
	} else if (bounded && (h->mail_count >= MAIL_MAX || h->mail_bytes + m->size > MAIL_BYTES)) {
		h->mail_lost |= told;
		h->lost_mail += told;
		r = -ENOBUFS;
	} else {
		first = STAILQ_EMPTY(&h->mail);
		STAILQ_INSERT_TAIL(&h->mail, m, link);
		h->mail_count++;
		h->mail_bytes += m->size;
	}
	if (first)
		hub_wake(h);
	pthread_mutex_unlock(&h->lock);
	return r;
}

struct mail *hub_mail_new(enum mail_kind kind, size_t extra)
{
	struct mail *m = calloc(1, sizeof *m + extra);
	if (m) {
		m->kind = kind;
		m->size = sizeof *m + extra;
	}
	return m;
}

/* ---- mail: sockets ------------------------------------------------------------------- */

int hub_reserve(struct hub *h, bool identified)
{
	int r = 0;
	pthread_mutex_lock(&h->lock);
	if (!h->running)
		r = -ESHUTDOWN;
	else if (h->reserved >= h->limit)
		r = -EBUSY;
	else if (!identified && h->reserved_unidentified >= h->limit_unidentified)
		r = -EAGAIN;
	if (r == 0) {
		h->reserved++;
		h->reserved_unidentified += !identified;
	}
	pthread_mutex_unlock(&h->lock);
	return r;
}

void hub_unreserve(struct hub *h, bool identified)
{
	pthread_mutex_lock(&h->lock);
	ALWAYS(h->reserved > 0);
	h->reserved--;
	h->reserved_unidentified -= !identified;
	pthread_mutex_unlock(&h->lock);
}

static bool is_identified(const struct hub_socket *s)
{
	return s->echo || s->identity;
}

static void refuse_socket(struct hub *h, const struct hub_socket *s)
{
	struct identity *i = s->identity;
	hub_unreserve(h, is_identified(s));
	close(s->fd);
	identity_unref(&i);
}

int hub_adopt(struct hub *h, const struct hub_socket *s)
{
	int flags = fcntl(s->fd, F_GETFL);
	struct mail *m = hub_mail_new(MAIL_ADOPT, s->extra_len);
	int r = m && flags >= 0 && fcntl(s->fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -ENOMEM;
	if (r == 0) {
		m->socket = *s;
		m->socket.extra = m + 1;
		if (s->extra_len)
			memcpy(m + 1, s->extra, s->extra_len);
		r = hub_post(h, m);
	}
	if (r < 0) {
		refuse_socket(h, s);
		free(m);
	}
	return r;
}

/* ---- mail: changes ------------------------------------------------------------------- */

static bool is_anybody_there(struct hub *h)
{
	/* Relaxed: whoever joins a room at this moment may be told, or not; what they see later is
	 * from after they have joined, which the hub's thread orders. */
	return atomic_load_explicit(&h->figures.rooms, memory_order_relaxed) > 0;
}

static char *put(char **to, const char *s)
{
	char *at = *to;
	*to = stpcpy(at, s) + 1;
	return at;
}

static struct mail *change_mail(const struct hub_change *c)
{
	size_t n = c->keys * sizeof(char *) + strlen(c->table) + strlen(c->op) + 2;
	for (size_t i = 0; i < c->keys; i++)
		n += strlen(c->key[i]) + 1;
	struct mail *m = hub_mail_new(MAIL_CHANGE, n);
	if (!m)
		return NULL;
	const char **key = (const char **)(m + 1);
	char *text = (char *)(key + c->keys);
	m->change = (struct hub_change){.key = key, .keys = c->keys, .known = c->known};
	m->change.table = put(&text, c->table);
	m->change.op = put(&text, c->op);
	for (size_t i = 0; i < c->keys; i++)
		key[i] = put(&text, c->key[i]);
	return m;
}

void hub_say_lost(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	h->mail_lost = true;
	h->lost_mail++;
	if (h->running)
		hub_wake(h);
	pthread_mutex_unlock(&h->lock);
}

void hub_publish_change(struct hub *h, const struct hub_change *c)
{
	if (!is_anybody_there(h))
		return;
	struct mail *m = change_mail(c);
	if (!m)
		hub_say_lost(h);
	else if (hub_post(h, m) < 0)
		hub_mail_free(m);
}

void hub_resync(struct hub *h)
{
	struct mail *m = hub_mail_new(MAIL_RESYNC, 0);
	if (!m)
		hub_say_lost(h);
	else if (hub_post(h, m) < 0)
		hub_mail_free(m);
}
