#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#include "courier_impl.h"
#include "provost/log.h"

enum {
	KEY_EVERY_US = 5000000, /* at most, however much is forged */
	FORGED_EVERY_US = 10000000,
	PARCELS_AT_ONCE = 1024,
	REFERENCES_AT_ONCE = 16,
};

/* ---- the key ------------------------------------------------------------------------- */

uint64_t parcels_key_due_us_locked(const struct courier *c)
{
	if (c->key_state == KEY_UNREAD)
		return STAILQ_EMPTY(&c->parcels) ? UINT64_MAX : 0;
	return c->key_wanted ? c->key_read_us + KEY_EVERY_US : UINT64_MAX;
}

/* What was dropped for want of the right key is lost: everybody looks anew. */
static void set_key(struct courier *c, enum key_state state, const unsigned char key[EVENT_KEY_LEN])
{
	bool other;

	pthread_mutex_lock(&c->lock);
	other = c->key_state != KEY_UNREAD && state == KEY_THERE &&
	        (c->key_state != KEY_THERE || memcmp(c->key, key, EVENT_KEY_LEN) != 0);
	c->key_state = state;
	memcpy(c->key, key, EVENT_KEY_LEN);
	c->key_read_us = clock_us();
	c->key_wanted = false;
	pthread_mutex_unlock(&c->lock);
	if (other) {
		log_info("courier: the key of what is published is another; it was read");
		hub_resync(c->hub);
	}
}

int parcels_serve_key(struct courier *c)
{
	unsigned char key[EVENT_KEY_LEN] = {0};
	bool due;
	int r;

	pthread_mutex_lock(&c->lock);
	due = clock_us() >= parcels_key_due_us_locked(c);
	pthread_mutex_unlock(&c->lock);
	if (!due)
		return 0;
	r = outbox_read_key(c, key);
	if (r == 0 || r == -ENOENT || r == -EACCES)
		set_key(c, r == 0 ? KEY_THERE : KEY_ABSENT, key);
	OPENSSL_cleanse(key, sizeof key);
	return r;
}

/* ---- parcels ------------------------------------------------------------------------- */

static void parcel_free(struct parcel *p)
{
	event_done(&p->event);
	free(p->text);
	free(p->fetched);
	free(p);
}

static struct parcel *parcel_new(const struct change *change)
{
	struct parcel *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->text = strdup(change->event);
	if (!p->text) {
		free(p);
		return NULL;
	}
	memcpy(p->digest, change->digest, CHANGE_DIGEST_LEN);
	p->size = sizeof *p + strlen(p->text);
	return p;
}

void parcels_drop(struct parcels *parcels)
{
	struct parcel *p;

	while ((p = STAILQ_FIRST(parcels))) {
		STAILQ_REMOVE_HEAD(parcels, link);
		parcel_free(p);
	}
}

static void count_forged(struct courier *c)
{
	pthread_mutex_lock(&c->lock);
	c->stats.forged++;
	c->key_wanted = true;
	pthread_cond_signal(&c->news);
	pthread_mutex_unlock(&c->lock);
}

static void lose(struct courier *c, uint64_t n)
{
	COURIER_COUNT(c, lost, n);
	hub_resync(c->hub);
}

/* 0; -EINVAL: it is not genuine; -ENOMEM. */
static int check(struct parcel *p, enum key_state state, const unsigned char key[EVENT_KEY_LEN])
{
	int r;

	if (state != KEY_THERE || !event_is_genuine(key, p->digest, p->text))
		return -EINVAL;
	r = event_parse(p->text, &p->event);
	p->checked = r == 0;
	return r;
}

static void publish(struct courier *c, const struct parcel *p)
{
	const struct event *e = &p->event;

	hub_publish_event(c->hub,
	                  &(struct hub_event){.id = e->id,
	                                      .room = e->room,
	                                      .name = e->name,
	                                      .data = e->data ? e->data : p->fetched,
	                                      .data_len = e->data ? e->data_len : p->fetched_len,
	                                      .durable = e->durable});
}

/* Takes the parcel over. What does not go straight on goes behind what waits. */
static void pass_on(struct courier *c, struct parcel *p)
{
	struct parcels dropped = STAILQ_HEAD_INITIALIZER(dropped);
	size_t lost = 0;
	bool straight;

	pthread_mutex_lock(&c->lock);
	/* Nobody else adds any: what is empty stays so. */
	straight = p->checked && p->event.data && STAILQ_EMPTY(&c->parcels) && !c->delivering;
	if (!straight) {
		STAILQ_INSERT_TAIL(&c->parcels, p, link);
		c->parcel_count++;
		c->parcel_bytes += p->size;
		if (c->parcel_count > COURIER_EVENTS_MAX || c->parcel_bytes > COURIER_EVENT_BYTES) {
			STAILQ_CONCAT(&dropped, &c->parcels);
			lost = c->parcel_count;
			c->parcel_count = c->parcel_bytes = 0;
		}
		pthread_cond_signal(&c->news);
	}
	pthread_mutex_unlock(&c->lock);
	if (straight) {
		publish(c, p);
		parcel_free(p);
	}
	parcels_drop(&dropped);
	if (lost)
		lose(c, lost);
}

/* In the log; the listener's thread. */
static void tell_of_forged(struct courier *c)
{
	uint64_t now = clock_us();

	if (c->forged_us && now - c->forged_us < FORGED_EVERY_US)
		return;
	c->forged_us = now;
	log_warn("courier: a notification claims to be published and is not; it was dropped");
}

void courier_event(struct courier *c, const struct change *change)
{
	struct parcel *p = parcel_new(change);
	unsigned char key[EVENT_KEY_LEN];
	enum key_state state;
	int r;

	CHECK_MAGIC(c, COURIER_MAGIC);
	pthread_mutex_lock(&c->lock);
	state = c->key_state;
	memcpy(key, c->key, sizeof key);
	pthread_mutex_unlock(&c->lock);
	r = !p ? -ENOMEM : state == KEY_UNREAD ? 0 : check(p, state, key);
	OPENSSL_cleanse(key, sizeof key);
	if (r == -EINVAL) {
		count_forged(c);
		if (state == KEY_THERE)
			tell_of_forged(c);
	} else if (r < 0) {
		lose(c, 1);
	}
	if (r == 0 && p->checked)
		COURIER_COUNT(c, events, 1);
	if (r == 0 && hub_has_audience(c->hub))
		pass_on(c, p);
	else if (p)
		parcel_free(p);
}

/* The first that wait, of which not too many are large; none before it is known whether there is a
 * key. */
static void detach_parcels(struct courier *c, struct parcels *to, enum key_state *ret_state,
                           unsigned char key[EVENT_KEY_LEN])
{
	struct parcel *p;
	size_t n = 0, references = 0;

	STAILQ_INIT(to);
	pthread_mutex_lock(&c->lock);
	while (c->key_state != KEY_UNREAD && (p = STAILQ_FIRST(&c->parcels)) &&
	       n++ < PARCELS_AT_ONCE && references < REFERENCES_AT_ONCE) {
		references += !p->event.data;
		STAILQ_REMOVE_HEAD(&c->parcels, link);
		STAILQ_INSERT_TAIL(to, p, link);
		c->parcel_count--;
		c->parcel_bytes -= p->size;
	}
	c->delivering = !STAILQ_EMPTY(to);
	*ret_state = c->key_state;
	memcpy(key, c->key, EVENT_KEY_LEN);
	pthread_mutex_unlock(&c->lock);
}

/* Those that came before the key was there. */
static void check_all(struct courier *c, struct parcels *parcels, enum key_state state,
                      const unsigned char key[EVENT_KEY_LEN])
{
	struct parcels good = STAILQ_HEAD_INITIALIZER(good);
	struct parcel *p;

	while ((p = STAILQ_FIRST(parcels))) {
		STAILQ_REMOVE_HEAD(parcels, link);
		bool before = p->checked;
		int r = before ? 0 : check(p, state, key);
		if (r == 0) {
			COURIER_COUNT(c, events, !before);
			STAILQ_INSERT_TAIL(&good, p, link);
			continue;
		}
		if (r == -EINVAL)
			count_forged(c);
		else
			lose(c, 1);
		parcel_free(p);
	}
	STAILQ_CONCAT(parcels, &good);
}

/* What is not there any more was acknowledged, or has been purged. */
static void publish_all(struct courier *c, struct parcels *parcels)
{
	struct parcel *p;
	uint64_t references = 0, missing = 0;

	STAILQ_FOREACH (p, parcels, link) {
		references += !p->event.data;
		if (p->event.data || p->fetched)
			publish(c, p);
		else
			missing += !p->event.durable;
	}
	COURIER_COUNT(c, references, references);
	parcels_drop(parcels);
	if (missing)
		lose(c, missing);
}

int parcels_serve(struct courier *c)
{
	unsigned char key[EVENT_KEY_LEN];
	struct parcels parcels;
	const struct parcel *p;
	enum key_state state;
	int r;

	detach_parcels(c, &parcels, &state, key);
	check_all(c, &parcels, state, key);
	OPENSSL_cleanse(key, sizeof key);
	r = outbox_fetch(c, &parcels);
	if (r == 0)
		publish_all(c, &parcels);
	pthread_mutex_lock(&c->lock);
	STAILQ_FOREACH (p, &parcels, link) {
		c->parcel_count++;
		c->parcel_bytes += p->size;
	}
	STAILQ_CONCAT(&parcels, &c->parcels);
	STAILQ_CONCAT(&c->parcels, &parcels);
	c->delivering = false;
	pthread_mutex_unlock(&c->lock);
	return r;
}
