#include <errno.h>
#include <string.h>

#include "hub_impl.h"

/* What other threads say of what was published, as mail. */

static void *put(char **to, const void *from, size_t n)
{
	void *at = *to;
	memcpy(at, from, n);
	*to += n;
	return at;
}

static const char *put_text(char **to, const char *s)
{
	return put(to, s, strlen(s) + 1);
}

bool hub_has_audience(struct hub *h)
{
	/* Relaxed: whoever comes at this moment is told what is kept, and joins its rooms later. */
	return atomic_load_explicit(&h->figures.clients, memory_order_relaxed) > 0 ||
	       atomic_load_explicit(&h->figures.rooms, memory_order_relaxed) > 0;
}

void hub_set_keeper(struct hub *h, const struct hub_keeper *k)
{
	ALWAYS(h->epoll_fd < 0);
	h->keeper = *k;
}

static struct mail *event_mail(const struct hub_event *e)
{
	struct mail *m =
	    hub_mail_new(MAIL_EVENT, strlen(e->room) + strlen(e->name) + 2 + e->data_len);
	if (!m)
		return NULL;
	char *to = (char *)(m + 1);
	m->event = *e;
	m->event.room = put_text(&to, e->room);
	m->event.name = put_text(&to, e->name);
	m->event.data = put(&to, e->data, e->data_len);
	return m;
}

void hub_publish_event(struct hub *h, const struct hub_event *e)
{
	if (!hub_has_audience(h))
		return;
	struct mail *m = event_mail(e);
	if (!m)
		hub_say_lost(h);
	else if (hub_post(h, m) < 0)
		hub_mail_free(m);
}

static struct mail *kept_mail(const struct hub_kept *k)
{
	size_t n = strlen(k->subject) + 1 + k->rows * sizeof *k->row;
	for (size_t i = 0; i < k->rows; i++)
		n += strlen(k->row[i].name) + 1 + k->row[i].data_len;
	struct mail *m = hub_mail_new(MAIL_KEPT, n);
	if (!m)
		return NULL;
	struct hub_row *row = (struct hub_row *)(m + 1);
	char *to = (char *)(row + k->rows);
	m->kept = *k;
	m->kept.row = row;
	m->kept.subject = put_text(&to, k->subject);
	for (size_t i = 0; i < k->rows; i++) {
		row[i] = k->row[i];
		row[i].name = put_text(&to, k->row[i].name);
		row[i].data = put(&to, k->row[i].data, k->row[i].data_len);
	}
	return m;
}

int hub_kept(struct hub *h, const struct hub_kept *k)
{
	struct mail *m = kept_mail(k);
	int r = m ? hub_post(h, m) : -ENOMEM;
	if (m && r < 0)
		hub_mail_free(m);
	return r == -ENOBUFS ? -EAGAIN : r;
}

void hub_acked(struct hub *h, const struct hub_ack *a, bool done)
{
	size_t n = strlen(a->subject) + 1 + (a->op_id ? strlen(a->op_id) + 1 : 0);
	struct mail *m = hub_mail_new(MAIL_ACKED, n);
	/* Without memory it stays unanswered, and the client repeats it. */
	if (!m)
		return;
	char *to = (char *)(m + 1);
	m->done = done;
	m->acked = (struct hub_ack){.client = a->client};
	m->acked.subject = put_text(&to, a->subject);
	m->acked.op_id = a->op_id ? put_text(&to, a->op_id) : NULL;
	if (hub_post(h, m) < 0)
		hub_mail_free(m);
}
