#include <string.h>

#include "http_impl.h"

/*
 * Eight fields of an answer are eight times three blocks of libmicrohttpd's memory, and that many
 * strings to be looked through: more time than all that Provost does for a hit. Of a hit's fields
 * only three are not the entry's.
 *
 * A response that is kept may be on its way to other clients of this thread meanwhile: they have
 * the bytes of its body, and of its fields the text that libmicrohttpd made of them before its
 * handler's caller went on to any other request. So the fields may be changed, by this thread.
 *
 * What is kept keeps its entry, which the cache may have given up: two MiB of bodies a thread at
 * most, and their variants, which are smaller.
 */
enum {
	KEPT = 32,             /* responses of a thread */
	KEPT_BYTES = 64 << 10, /* of an entry's body; not what is counted while it is sent */
};

struct kept {
	const struct entry *seen; /* whom it was looked for last; compared, never looked into */
	const struct entry *entry;
	unsigned coding;
	struct MHD_Response *response; /* NULL: none; it has a reference to the entry */
	struct varying is;
};

static _Thread_local struct kept kept[KEPT];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static void thread_exits(void *arg)
{
	struct kept *own = arg;
	for (size_t i = 0; i < KEPT; i++)
		if (own[i].response)
			MHD_destroy_response(own[i].response);
	memset(own, 0, sizeof kept);
}

static void make_key(void)
{
	ALWAYS(pthread_key_create(&exit_key, thread_exits) == 0);
}

static struct kept *place_of(const struct entry *e)
{
	/* Fibonacci hashing: addresses of entries have their differences in the middle. */
	return &kept[(uintptr_t)e * 0x9E3779B97F4A7C15u >> (64 - 5)];
	_Static_assert(KEPT == 1 << 5, "the bits taken");
}

static void change(struct MHD_Response *r, const char *name, char *is, const char *to)
{
	if (!strcmp(is, to))
		return;
	if (*is)
		MHD_del_response_header(r, name, is);
	/* Without memory the field is missing, as in any other answer. */
	strcpy(is, MHD_add_response_header(r, name, to) == MHD_YES ? to : "");
}

struct MHD_Response *kept_find(const struct entry *e, unsigned coding, const struct varying *v)
{
	struct kept *k = place_of(e);
	if (k->entry != e || k->coding != coding)
		return NULL;
	k->seen = e;
	change(k->response, "X-Request-Id", k->is.id, v->id);
	change(k->response, "Cache-Status", k->is.cache_status, v->cache_status);
	change(k->response, "Age", k->is.age, v->age);
	return k->response;
}

bool kept_put(const struct entry *e, unsigned coding, size_t bytes, struct MHD_Response *r,
              const struct varying *v)
{
	struct kept *k = place_of(e);
	if (bytes > KEPT_BYTES || k->seen != e) {
		k->seen = e;
		return false;
	}
	pthread_once(&once, make_key);
	if (pthread_setspecific(exit_key, kept))
		return false;
	if (k->response)
		MHD_destroy_response(k->response);
	*k = (struct kept){.seen = e, .entry = e, .coding = coding, .response = r, .is = *v};
	return true;
}
