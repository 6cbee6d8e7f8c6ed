#include <errno.h>

#include "auth_impl.h"

/* ---- states -------------------------------------------------------------------------- */

static void state_free(struct snapshot_object *o)
{
	struct auth_state *st = (struct auth_state *)o;

	settings_unref(&st->settings);
	keytable_unref(&st->keys);
	revocations_unref(&st->revocations);
	free(st);
}

/* Publishes a state with the given parts, which it takes over, and the present one's where they are
 * NULL. */
static void publish_locked(struct auth *a, struct settings *settings, struct keytable *keys,
                           struct revocations *revocations)
{
	struct auth_state *was = a->state, *st = xcalloc(1, sizeof *st);

	st->object.free = state_free;
	st->generation = ++a->generation;
	st->settings = settings ? settings : settings_ref(was->settings);
	st->keys = keys ? keys : keytable_ref(was->keys);
	st->revocations = revocations ? revocations : revocations_ref(was->revocations);
	a->state = st;
	snapshot_set(a->snapshot, &st->object);
}

/* ---- life ---------------------------------------------------------------------------- */

struct auth *auth_new(void)
{
	struct auth *a = xcalloc(1, sizeof *a);
	struct errors *none = errors_new();

	a->magic = AUTH_MAGIC;
	a->snapshot = snapshot_new();
	a->cache = idcache_new();
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_lock(&a->lock);
	publish_locked(a, settings_new_closed(1), keytable_new(NULL, 0, none), revocations_new());
	pthread_mutex_unlock(&a->lock);
	errors_free(&none);
	return a;
}

void auth_free(struct auth **ap)
{
	struct auth *a = *ap;

	*ap = NULL;
	if (!a)
		return;
	CHECK_MAGIC(a, AUTH_MAGIC);
	idcache_free(&a->cache);
	snapshot_free(&a->snapshot);
	watch_done(&a->watch);
	auth_options_done(&a->options);
	pthread_mutex_destroy(&a->lock);
	a->magic = 0;
	free(a);
}

enum auth_mode auth_mode(struct auth *a)
{
	return auth_state(a)->settings->mode;
}

int64_t auth_leeway_s(struct auth *a)
{
	return auth_state(a)->settings->options.leeway_s;
}

/* ---- settings ------------------------------------------------------------------------ */

static int load_locked(struct auth *a, const struct auth_options *o, struct errors *errs,
                       struct errors *notes)
{
	struct watch watch = {.file = NULL};
	struct settings *s = settings_new(o, a->generation + 1, &watch, errs, notes);

	/* Of refused files too, or each look at them would complain anew; but of options that were
	 * refused nothing is kept. */
	if (s || o == &a->options) {
		watch_done(&a->watch);
		a->watch = watch;
	} else {
		watch_done(&watch);
	}
	if (!s)
		return -EINVAL;
	publish_locked(a, s, NULL, NULL);
	/* What was verified by others is of no use any more; it would go by and by. */
	idcache_clear(a->cache);
	return 0;
}

int auth_configure(struct auth *a, const struct auth_options *o, struct errors *errs,
                   struct errors *notes)
{
	int r;

	CHECK_MAGIC(a, AUTH_MAGIC);
	pthread_mutex_lock(&a->lock);
	r = load_locked(a, o, errs, notes);
	if (r == 0) {
		auth_options_done(&a->options);
		auth_options_copy(&a->options, o);
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}

int auth_refresh(struct auth *a, struct errors *errs, struct errors *notes)
{
	int r = 0;

	CHECK_MAGIC(a, AUTH_MAGIC);
	pthread_mutex_lock(&a->lock);
	if (watch_changed(&a->watch))
		r = load_locked(a, &a->options, errs, notes) < 0 ? -EINVAL : 1;
	pthread_mutex_unlock(&a->lock);
	return r;
}

/* ---- keys ---------------------------------------------------------------------------- */

int auth_keys_set(struct auth *a, const struct apikey *list, size_t n, struct errors *errs)
{
	struct keytable *t;

	CHECK_MAGIC(a, AUTH_MAGIC);
	t = keytable_new(list, n, errs);
	if (!t)
		return -EINVAL;
	pthread_mutex_lock(&a->lock);
	publish_locked(a, NULL, t, NULL);
	pthread_mutex_unlock(&a->lock);
	return 0;
}

/* ---- revocations --------------------------------------------------------------------- */

int auth_revocations_set(struct auth *a, const struct revocation *list, size_t n,
                         struct errors *errs)
{
	struct revocations *t = revocations_new();
	size_t before = errors_count(errs);

	CHECK_MAGIC(a, AUTH_MAGIC);
	for (size_t i = 0; i < n; i++) {
		int r = revocations_add(t, &list[i]);

		if (r == -EINVAL)
			errors_add(errs, NULL, 0,
			           "revocation %zu: it must name a token or a subject of 1 to 255 "
			           "bytes of text",
			           i + 1);
		if (r != -ENOSPC)
			continue;
		errors_add(
		    errs, NULL, 0,
		    "there are %zu revocations, more than %d: delete those whose tokens have "
		    "expired, or revoke by subject",
		    n, AUTH_REVOCATIONS_MAX);
		break;
	}
	if (errors_count(errs) > before) {
		revocations_unref(&t);
		return -EINVAL;
	}
	pthread_mutex_lock(&a->lock);
	publish_locked(a, NULL, NULL, t);
	pthread_mutex_unlock(&a->lock);
	return 0;
}

int auth_revoke(struct auth *a, const struct revocation *rev)
{
	struct revocations *t;
	int r;

	CHECK_MAGIC(a, AUTH_MAGIC);
	pthread_mutex_lock(&a->lock);
	t = revocations_copy(a->state->revocations);
	r = revocations_add(t, rev);
	if (r == 0)
		publish_locked(a, NULL, NULL, t);
	else
		revocations_unref(&t);
	pthread_mutex_unlock(&a->lock);
	return r;
}

int auth_unrevoke(struct auth *a, enum revocation_kind kind, const char *what)
{
	struct revocations *t;
	bool found;

	CHECK_MAGIC(a, AUTH_MAGIC);
	pthread_mutex_lock(&a->lock);
	t = revocations_copy_without(a->state->revocations, kind, what, &found);
	if (found)
		publish_locked(a, NULL, NULL, t);
	else
		revocations_unref(&t);
	pthread_mutex_unlock(&a->lock);
	return found ? 0 : -ENOENT;
}

size_t auth_revocations_purge(struct auth *a, int64_t now_s)
{
	struct revocations *t;
	size_t dropped;

	CHECK_MAGIC(a, AUTH_MAGIC);
	pthread_mutex_lock(&a->lock);
	t = revocations_copy_current(a->state->revocations, a->state->keys, now_s);
	dropped = revocations_count(a->state->revocations) - revocations_count(t);
	if (dropped > 0)
		publish_locked(a, NULL, NULL, t);
	else
		revocations_unref(&t);
	pthread_mutex_unlock(&a->lock);
	return dropped;
}

/* ---- figures ------------------------------------------------------------------------- */

void auth_stats(struct auth *a, struct auth_stats *ret)
{
	const struct auth_state *st;

	CHECK_MAGIC(a, AUTH_MAGIC);
	st = auth_state(a);
	*ret = (struct auth_stats){
	    .keys = st->settings->keys.count,
	    .api_keys = keytable_count(st->keys),
	    .revocations = revocations_count(st->revocations),
	    .generation = st->generation,
	};
	ret->cached = idcache_count(a->cache);
}
