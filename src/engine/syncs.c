#include "syncs.h"

#include <sodium.h>
#include <string.h>
#include <time.h>

enum { TOKEN_BYTES = CHANGE_TOKEN_LEN / 2 };

void syncs_init(struct syncs *s)
{
	*s = (struct syncs){0};
	pthread_mutex_init(&s->lock, NULL);
	for (size_t i = 0; i < SYNC_BUCKETS; i++)
		TAILQ_INIT(&s->bucket[i]);
}

void syncs_done(struct syncs *s)
{
	ALWAYS(s->count == 0);
	pthread_mutex_destroy(&s->lock);
}

static const char *token_of(const struct sync *x)
{
	return x->payload + sizeof "sync " - 1;
}

/* Tokens are random: their first bits are as good as a hash of them. */
static struct sync_list *bucket_of(struct syncs *s, const char *token)
{
	unsigned h = 0;

	for (int i = 0; i < 2; i++)
		h = h << 4 | (unsigned)(token[i] <= '9' ? token[i] - '0' : token[i] - 'a' + 10);
	return &s->bucket[h % SYNC_BUCKETS];
}

/* ---- the listener's side ------------------------------------------------------------- */

static bool may_come_locked(const struct syncs *s, const struct sync *x)
{
	return x->connection && x->connection == s->connection && !s->overdue;
}

void syncs_set(struct syncs *s, uint64_t connection, bool overdue)
{
	struct sync *x;

	pthread_mutex_lock(&s->lock);
	s->connection = connection;
	s->overdue = overdue;
	for (size_t i = 0; i < SYNC_BUCKETS; i++)
		TAILQ_FOREACH (x, &s->bucket[i], link)
			if (!may_come_locked(s, x))
				pthread_cond_signal(&x->news);
	pthread_mutex_unlock(&s->lock);
}

void syncs_arrived(struct syncs *s, const char *token)
{
	struct sync *x;

	pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (x, bucket_of(s, token), link) {
		if (strcmp(token_of(x), token) != 0)
			continue;
		s->seen += !x->seen;
		x->seen = true;
		pthread_cond_signal(&x->news);
		break;
	}
	pthread_mutex_unlock(&s->lock);
}

void syncs_stats(struct syncs *s, uint64_t *ret_seen, uint64_t *ret_late)
{
	pthread_mutex_lock(&s->lock);
	*ret_seen = s->seen;
	*ret_late = s->late;
	pthread_mutex_unlock(&s->lock);
}

/* ---- the writers' side --------------------------------------------------------------- */

static void write_payload(struct sync *x)
{
	unsigned char bytes[TOKEN_BYTES];
	char token[CHANGE_TOKEN_LEN + 1];

	randombytes_buf(bytes, sizeof bytes);
	sodium_bin2hex(token, sizeof token, bytes, sizeof bytes);
	snprintf(x->payload, sizeof x->payload, "sync %s", token);
}

void syncs_expect(struct syncs *s, struct sync *x)
{
	pthread_condattr_t attr;

	*x = (struct sync){0};
	write_payload(x);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&x->news, &attr);
	pthread_condattr_destroy(&attr);

	pthread_mutex_lock(&s->lock);
	if (s->connection && s->count < SYNCS_MAX) {
		x->connection = s->connection;
		TAILQ_INSERT_TAIL(bucket_of(s, token_of(x)), x, link);
		s->count++;
	}
	pthread_mutex_unlock(&s->lock);
}

static void leave_locked(struct syncs *s, struct sync *x)
{
	if (!x->connection)
		return;
	ALWAYS(s->count > 0);
	TAILQ_REMOVE(bucket_of(s, token_of(x)), x, link);
	s->count--;
}

bool syncs_await(struct syncs *s, struct sync *x, uint64_t until_us)
{
	struct timespec until = {.tv_sec = (time_t)(until_us / 1000000),
	                         .tv_nsec = (long)(until_us % 1000000 * 1000)};
	bool timed_out = false;

	pthread_mutex_lock(&s->lock);
	while (!x->seen && !timed_out && may_come_locked(s, x))
		timed_out = pthread_cond_timedwait(&x->news, &s->lock, &until) != 0;
	bool seen = x->seen;
	s->late += !seen;
	leave_locked(s, x);
	pthread_mutex_unlock(&s->lock);
	pthread_cond_destroy(&x->news);
	return seen;
}

void syncs_forget(struct syncs *s, struct sync *x)
{
	pthread_mutex_lock(&s->lock);
	leave_locked(s, x);
	pthread_mutex_unlock(&s->lock);
	pthread_cond_destroy(&x->news);
}
