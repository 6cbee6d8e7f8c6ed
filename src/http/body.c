#include <string.h>
#include <strings.h>

#include "http_impl.h"

enum { BODIES_MAX = 64 << 20 }; /* bytes kept, of all requests together; one of max_body fits */

/* ---- its media type ------------------------------------------------------------------ */

static void skip_blanks(struct slice *s)
{
	while (s->n > 0 && (*s->p == ' ' || *s->p == '\t')) {
		s->p++;
		s->n--;
	}
}

static bool take(struct slice *s, char c)
{
	skip_blanks(s);
	if (s->n == 0 || *s->p != c)
		return false;
	s->p++;
	s->n--;
	return true;
}

static struct slice take_word(struct slice *s)
{
	struct slice word = {s->p, 0};
	while (word.n < s->n && !strchr(" \t;=\"", s->p[word.n]))
		word.n++;
	*s = (struct slice){s->p + word.n, s->n - word.n};
	return word;
}

/* Between quotes as it stands: no charset has a reason to be escaped. */
static bool take_value(struct slice *s, struct slice *ret)
{
	if (!take(s, '"')) {
		*ret = take_word(s);
		return true;
	}
	const char *end = memchr(s->p, '"', s->n);
	if (!end)
		return false;
	*ret = (struct slice){s->p, (size_t)(end - s->p)};
	*s = (struct slice){end + 1, s->n - ret->n - 1};
	return true;
}

static bool is(struct slice s, const char *text)
{
	return s.n == strlen(text) && !strncasecmp(s.p, text, s.n);
}

bool body_type_is_json(const char *type)
{
	struct slice rest = {type, type ? strlen(type) : 0}, value;
	if (!is(take_word(&rest), "application/json"))
		return false;
	while (take(&rest, ';')) {
		skip_blanks(&rest);
		struct slice name = take_word(&rest);
		if (name.n == 0)
			continue; /* RFC 9110, section 5.6.6 */
		if (!take(&rest, '=') || !take_value(&rest, &value))
			return false;
		if (is(name, "charset") && !is(value, "utf-8"))
			return false;
	}
	skip_blanks(&rest);
	return rest.n == 0;
}

/* ---- what is kept of it -------------------------------------------------------------- */

static void charge(struct request *q, size_t bytes)
{
	/* Relaxed: a sum that guards nothing but itself. */
	atomic_fetch_add_explicit(&http_of(q)->bodies, bytes - q->charged, memory_order_relaxed);
	q->charged = bytes;
}

/* Nobody can make us hold anything before this has said that they may call what takes it. */
static void decide(struct request *q)
{
	size_t max = builtin_body_max(q);
	if (!max)
		max = route_body_max(q);
	q->content.max = max;
	q->fate = max ? BODY_KEPT : BODY_DROPPED;
}

static void keep(struct request *q, const char *data, size_t n)
{
	struct http *h = http_of(q);
	buf_add(&q->content, data, n);
	charge(q, q->content.cap);
	if (atomic_load_explicit(&h->bodies, memory_order_relaxed) <= BODIES_MAX)
		return;
	q->fate = BODY_CROWDED;
	body_done(q);
}

void body_take(struct request *q, const char *data, size_t n)
{
	size_t max = http_live(http_of(q))->max_body;
	q->body += n;
	if (q->body > max) {
		q->body_over = true;
		body_done(q);
		return;
	}
	if (q->fate == BODY_UNDECIDED)
		decide(q);
	if (q->fate == BODY_KEPT)
		keep(q, data, n);
}

void body_forget(struct request *q)
{
	buf_done(&q->content);
}

void body_done(struct request *q)
{
	buf_done(&q->content);
	charge(q, 0);
}

unsigned body_refusal(const struct request *q, const char **ret_why)
{
	const char *coding = q->head.content_encoding;
	if (q->body == 0)
		return 0;
	if (coding && strcasecmp(coding, "identity")) {
		*ret_why = "The body must not be compressed.";
		return 415;
	}
	if (!body_type_is_json(q->head.content_type)) {
		*ret_why = "The body must be application/json, in UTF-8.";
		return 415;
	}
	switch (q->fate) {
	case BODY_KEPT:
		if (!q->content.failed)
			return 0;
		*ret_why = "The body is larger than this path accepts.";
		return 413;
	case BODY_CROWDED:
		*ret_why = "Too many large requests are being received. Try again.";
		return 503;
	default:
		/* Dropped by what held then, and now it does not hold any more. */
		*ret_why = "What this path does, or who may call it, has just changed. Try again.";
		return 503;
	}
}
