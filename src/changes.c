#include "changes.h"

#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "provost/config.h"
#include "provost/courier.h"
#include "provost/hub.h"
#include "provost/log.h"

/* ---- the listener's thread ----------------------------------------------------------- */

/* Noted before the wake, and taken after it: nothing is missed. */
static void note(struct changes *c, enum news news)
{
	uint64_t one = 1;

	atomic_fetch_or(&c->news, news);
	/* It fails when main is to wake up anyway. */
	(void)!write(c->wake, &one, sizeof one);
}

static void note_identities(void *arg)
{
	note(arg, NEWS_IDENTITIES);
}

static void note_triggers(void *arg)
{
	note(arg, NEWS_TRIGGERS);
}

/* The values of the primary key, old and new; NULL: they are not known, or the key has several
 * columns. */
static const struct change_column *keys_of(const struct change *c)
{
	for (size_t i = 0; c->known && c->key && i < c->columns; i++)
		if (!strcmp(c->column[i].name, c->key))
			return &c->column[i];
	return NULL;
}

static void tell_change(void *arg, const struct change *change)
{
	struct changes *c = arg;
	const struct change_column *keys = keys_of(change);
	struct hub_change told = {.table = change->table, .op = change->op, .known = keys != NULL};

	if (keys) {
		told.key = (const char *const *)keys->value;
		told.keys = keys->values;
	}
	if (c->hub)
		hub_publish_change(c->hub, &told);
}

static void tell_raised(void *arg)
{
	struct changes *c = arg;

	if (c->hub)
		hub_raised(c->hub);
}

static void tell_event(void *arg, const struct change *change)
{
	struct changes *c = arg;

	if (c->courier)
		courier_event(c->courier, change);
}

static void tell_gap(void *arg)
{
	struct changes *c = arg;

	if (c->hub)
		hub_resync(c->hub);
}

/* ---- main ---------------------------------------------------------------------------- */

/* Borrows from the configuration. */
static struct listener_options options_of(const struct config *config)
{
	struct listener_options o = config->listener;

	if (!o.url)
		o.url = config->pool.url;
	return o;
}

void changes_init(struct changes *c, const struct config *config, struct generations *g,
                  struct snapshot *catalog)
{
	const struct listener_sink sink = {.change = tell_change,
	                                   .raised = tell_raised,
	                                   .event = tell_event,
	                                   .gap = tell_gap,
	                                   .began = tell_gap,
	                                   .identities = note_identities,
	                                   .triggers = note_triggers,
	                                   .arg = c};
	const struct listener_options o = options_of(config);

	*c = (struct changes){.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	ALWAYS(c->wake >= 0);
	c->listener = listener_new(&o, g, catalog, &sink);
}

void changes_done(struct changes *c)
{
	listener_free(&c->listener);
	close(c->wake);
}

void changes_tell(struct changes *c, struct hub *h, struct courier *courier)
{
	c->hub = h;
	c->courier = courier;
}

void changes_warn(const struct config *config)
{
	if (!config->pool.prepare && !config->listener.url)
		log_warn(
		    "changes cannot be heard through a transaction pooler, and without that "
		    "nothing is cached: let [database] listen_url lead to PostgreSQL directly, "
		    "past the pooler that prepare = no is written for");
}

void changes_configure(struct changes *c, const struct config *config)
{
	const struct listener_options o = options_of(config);

	listener_configure(c->listener, &o);
}

void changes_await(struct changes *c, int64_t ms)
{
	uint64_t until_ms = clock_ms() + (uint64_t)ms;
	struct listener_stats s;

	listener_stats(c->listener, &s);
	while (s.state != LISTENER_LIVE && clock_ms() < until_ms) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		listener_stats(c->listener, &s);
	}
}

unsigned changes_take(struct changes *c)
{
	uint64_t count;

	(void)!read(c->wake, &count, sizeof count);
	return atomic_exchange(&c->news, 0);
}
