#include "http_impl.h"

enum {
	LARGE = 64 << 10,      /* bytes; smaller bodies are bounded by the number of connections */
	LARGE_MAX = 512 << 20, /* of larger ones that are being sent */
};

/* One answer that is being sent from a large body. */
struct sending {
	struct http *http;
	struct body body;
};

static bool begin(struct http *h, const struct body *b)
{
	pthread_mutex_lock(&h->sending_lock);
	bool ok = *b->senders > 0 || h->sending_bytes + b->counted <= LARGE_MAX;
	if (ok && (*b->senders)++ == 0)
		h->sending_bytes += b->counted;
	pthread_mutex_unlock(&h->sending_lock);
	return ok;
}

static void end(struct http *h, const struct body *b)
{
	pthread_mutex_lock(&h->sending_lock);
	ALWAYS(*b->senders > 0 && h->sending_bytes >= b->counted);
	if (--*b->senders == 0)
		h->sending_bytes -= b->counted;
	pthread_mutex_unlock(&h->sending_lock);
}

/* The response is freed when it is sent, or its connection gone. */
static void sending_free(void *p)
{
	struct sending *s = p;
	end(s->http, &s->body);
	s->body.done(s->body.owner);
	free(s);
}

static struct MHD_Response *over(const struct body *b, void (*done)(void *), void *arg)
{
	return b->pieces ? response_over_pieces(b->pieces, b->count, done, arg)
	                 : response_over(b->bytes, b->len, done, arg);
}

struct MHD_Response *sending_response(struct http *h, const struct body *b, bool *ret_busy)
{
	*ret_busy = false;
	if (b->len <= LARGE)
		return over(b, b->done, b->owner);
	struct sending *s = malloc(sizeof *s);
	*ret_busy = s && !begin(h, b);
	if (!s || *ret_busy) {
		free(s);
		b->done(b->owner);
		return NULL;
	}
	*s = (struct sending){h, *b};
	return over(b, sending_free, s);
}
