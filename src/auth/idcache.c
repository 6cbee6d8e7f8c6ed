#include "idcache.h"

#include <pthread.h>
#include <string.h>

enum {
	WAYS = 8,
	SETS = AUTH_CACHED_MAX / WAYS,
	LOCKS = 16,
};

struct slot {
	unsigned char digest[DIGEST_LEN];
	struct identity *identity; /* one reference; NULL: free */
	uint64_t used;             /* the stripe's clock */
};

struct stripe {
	_Alignas(64)
	    pthread_mutex_t lock; /* guards the clock and the sets of its number modulo LOCKS */
	uint64_t clock;
};

struct idcache {
	struct stripe stripe[LOCKS];
	struct slot slot[SETS][WAYS];
};

struct idcache *idcache_new(void)
{
	struct idcache *c = NULL;

	ALWAYS(posix_memalign((void **)&c, _Alignof(struct idcache), sizeof *c) == 0);
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_init(&c->stripe[i].lock, NULL);
	return c;
}

void idcache_free(struct idcache **cp)
{
	struct idcache *c = *cp;

	*cp = NULL;
	if (!c)
		return;
	idcache_clear(c);
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&c->stripe[i].lock);
	free(c);
}

static size_t set_of(const unsigned char digest[DIGEST_LEN])
{
	size_t n;

	memcpy(&n, digest, sizeof n);
	return n % SETS;
}

/* Not in constant time: to come near a digest that is here, one would have to choose SHA-256's
 * output. */
static struct slot *find_locked(struct slot *set, const unsigned char digest[DIGEST_LEN])
{
	for (size_t i = 0; i < WAYS; i++)
		if (set[i].identity && memcmp(set[i].digest, digest, DIGEST_LEN) == 0)
			return &set[i];
	return NULL;
}

struct identity *idcache_get(struct idcache *c, const unsigned char digest[DIGEST_LEN],
                             uint64_t origin, int64_t now_s)
{
	size_t n = set_of(digest);
	struct stripe *st = &c->stripe[n % LOCKS];
	struct identity *found = NULL, *dead = NULL;
	struct slot *s;

	pthread_mutex_lock(&st->lock);
	s = find_locked(c->slot[n], digest);
	if (s && s->identity->origin == origin && now_s < s->identity->expires_s) {
		found = identity_ref(s->identity);
		s->used = ++st->clock;
	} else if (s) {
		dead = s->identity;
		s->identity = NULL;
	}
	pthread_mutex_unlock(&st->lock);
	identity_unref(&dead);
	return found;
}

static struct slot *room_locked(struct slot *set, int64_t now_s)
{
	struct slot *oldest = &set[0];

	for (size_t i = 0; i < WAYS; i++) {
		if (!set[i].identity || now_s >= set[i].identity->expires_s)
			return &set[i];
		if (set[i].used < oldest->used)
			oldest = &set[i];
	}
	return oldest;
}

void idcache_put(struct idcache *c, const unsigned char digest[DIGEST_LEN], struct identity *i,
                 int64_t now_s)
{
	size_t n = set_of(digest);
	struct stripe *st = &c->stripe[n % LOCKS];
	struct identity *dead;
	struct slot *s;

	identity_ref(i);
	pthread_mutex_lock(&st->lock);
	s = find_locked(c->slot[n], digest);
	if (!s)
		s = room_locked(c->slot[n], now_s);
	dead = s->identity;
	memcpy(s->digest, digest, DIGEST_LEN);
	s->identity = i;
	s->used = ++st->clock;
	pthread_mutex_unlock(&st->lock);
	identity_unref(&dead);
}

/* Detaches a set under its lock, frees outside. */
static void clear_set(struct idcache *c, size_t n)
{
	struct stripe *st = &c->stripe[n % LOCKS];
	struct identity *dead[WAYS];

	pthread_mutex_lock(&st->lock);
	for (size_t i = 0; i < WAYS; i++) {
		dead[i] = c->slot[n][i].identity;
		c->slot[n][i].identity = NULL;
	}
	pthread_mutex_unlock(&st->lock);
	for (size_t i = 0; i < WAYS; i++)
		identity_unref(&dead[i]);
}

void idcache_clear(struct idcache *c)
{
	for (size_t n = 0; n < SETS; n++)
		clear_set(c, n);
}

size_t idcache_count(struct idcache *c)
{
	size_t count = 0;

	for (size_t n = 0; n < SETS; n++) {
		pthread_mutex_lock(&c->stripe[n % LOCKS].lock);
		for (size_t i = 0; i < WAYS; i++)
			count += c->slot[n][i].identity != NULL;
		pthread_mutex_unlock(&c->stripe[n % LOCKS].lock);
	}
	return count;
}
