#include "provost/snapshot.h"

#include <pthread.h>

/*
 * Why this is free of the load-then-increment race: `current` is read, and its count raised, under
 * `lock` only, while the snapshot's own reference keeps the object alive; snapshot_set takes that
 * reference away under the same lock and drops it afterwards. Outside the lock a thread touches
 * only an object whose count already includes the thread's cached reference.
 *
 * Generations are unique over all snapshots of the process, so a cache left behind by a snapshot
 * that is gone never matches one that got its slot.
 */

enum { SNAPSHOT_MAGIC = 0x534e4150 };

struct snapshot {
	unsigned magic;
	unsigned slot;
	/* Written under lock, read without. Acquire/release: who sees the new generation sees all
	 * that was done before snapshot_set. */
	_Atomic uint64_t generation;
	pthread_mutex_t lock;            /* guards current, and generation's agreement with it */
	struct snapshot_object *current; /* one reference */
};

struct cached {
	uint64_t generation; /* 0: none */
	struct snapshot_object *object;
};

static _Thread_local struct cached cache[SNAPSHOTS_MAX];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER; /* guards slot_taken */
static bool slot_taken[SNAPSHOTS_MAX];

/* Only uniqueness matters, hence relaxed. */
static _Atomic uint64_t generations;

static uint64_t next_generation(void)
{
	return atomic_fetch_add_explicit(&generations, 1, memory_order_relaxed) + 1;
}

static void cached_release(struct cached *c)
{
	struct snapshot_object *o = c->object;

	c->generation = 0;
	c->object = NULL;
	snapshot_unref(o);
}

static void thread_exits(void *arg)
{
	struct cached *own = arg;

	for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
		cached_release(&own[i]);
}

static void make_key(void)
{
	ALWAYS(pthread_key_create(&exit_key, thread_exits) == 0);
}

static unsigned slot_take(void)
{
	unsigned slot = 0;

	pthread_mutex_lock(&slots_lock);
	while (slot < SNAPSHOTS_MAX && slot_taken[slot])
		slot++;
	ALWAYS(slot < SNAPSHOTS_MAX);
	slot_taken[slot] = true;
	pthread_mutex_unlock(&slots_lock);
	return slot;
}

static void slot_give_back(unsigned slot)
{
	pthread_mutex_lock(&slots_lock);
	slot_taken[slot] = false;
	pthread_mutex_unlock(&slots_lock);
}

struct snapshot *snapshot_new(void)
{
	struct snapshot *s = xcalloc(1, sizeof(*s));

	pthread_once(&once, make_key);
	s->magic = SNAPSHOT_MAGIC;
	s->slot = slot_take();
	pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->generation, next_generation());
	return s;
}

void snapshot_free(struct snapshot **sp)
{
	struct snapshot *s = *sp;

	if (!s)
		return;
	CHECK_MAGIC(s, SNAPSHOT_MAGIC);
	*sp = NULL;
	/* The main thread never exits as threads do: what it cached goes now. */
	cached_release(&cache[s->slot]);
	snapshot_unref(s->current);
	pthread_mutex_destroy(&s->lock);
	slot_give_back(s->slot);
	s->magic = 0;
	free(s);
}

void snapshot_set(struct snapshot *s, struct snapshot_object *o)
{
	struct snapshot_object *old;

	CHECK_MAGIC(s, SNAPSHOT_MAGIC);
	if (o)
		atomic_init(&o->refs, 1);
	pthread_mutex_lock(&s->lock);
	old = s->current;
	s->current = o;
	atomic_store_explicit(&s->generation, next_generation(), memory_order_release);
	pthread_mutex_unlock(&s->lock);
	/* Outside the lock: freeing an object may take long. */
	snapshot_unref(old);
}

static struct snapshot_object *renew(struct snapshot *s, struct cached *c)
{
	struct snapshot_object *stale = c->object;

	CHECK_MAGIC(s, SNAPSHOT_MAGIC);
	pthread_mutex_lock(&s->lock);
	c->object = s->current;
	c->generation = atomic_load_explicit(&s->generation, memory_order_relaxed);
	if (c->object)
		snapshot_ref(c->object);
	pthread_mutex_unlock(&s->lock);

	/* Any value but NULL makes the destructor run. */
	ALWAYS(pthread_setspecific(exit_key, cache) == 0);
	snapshot_unref(stale);
	return c->object;
}

struct snapshot_object *snapshot_use(struct snapshot *s)
{
	struct cached *c = &cache[s->slot];

	if (c->generation == atomic_load_explicit(&s->generation, memory_order_acquire))
		return c->object;
	return renew(s, c);
}

void snapshot_ref(struct snapshot_object *o)
{
	/* Relaxed: whoever raises it already holds the object. */
	unsigned before = atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);

	ALWAYS(before > 0);
}

void snapshot_unref(struct snapshot_object *o)
{
	unsigned before;

	if (!o)
		return;
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	before = atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel);
	ALWAYS(before > 0);
	if (before == 1)
		o->free(o);
}
