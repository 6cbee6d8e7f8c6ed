#include "topics.h"

/*
 * What is at a path is kept once, and is of the share of one user of those who watch it: the first
 * whose share has room. Nobody else's grows for it. A path that none of them has room for ends. So
 * one user cannot fill what there is for all.
 */

static size_t size_of(const struct topic *t)
{
	return t->message ? t->message->size : 0;
}

void share_drop(struct topic *t)
{
	if (t->payer)
		t->payer->client->user->body_bytes -= size_of(t);
	t->payer = NULL;
}

bool share_take(struct topic *t)
{
	size_t size = size_of(t);

	if (t->payer && t->payer->client->user->body_bytes <= HUB_BODIES_PER_USER)
		return true;
	share_drop(t);
	for (uint32_t i = 0; i < t->watches; i++) {
		struct user *u = t->watch[i]->client->user;
		if (u->body_bytes + size > HUB_BODIES_PER_USER)
			continue;
		u->body_bytes += size;
		t->payer = t->watch[i];
		return true;
	}
	return false;
}

void share_resize(struct topic *t, const struct message *m)
{
	if (t->payer)
		t->payer->client->user->body_bytes += (m ? m->size : 0) - size_of(t);
}

void share_orphan(struct hub *h, struct topic *t)
{
	share_drop(t);
	if (t->orphan)
		return;
	t->orphan = true;
	TAILQ_INSERT_TAIL(&h->topics->orphans, t, orphaned);
}

void share_forget(struct hub *h, struct topic *t)
{
	share_drop(t);
	if (t->orphan)
		TAILQ_REMOVE(&h->topics->orphans, t, orphaned);
	t->orphan = false;
}

void share_place_orphans(struct hub *h)
{
	struct topic *t;

	while ((t = TAILQ_FIRST(&h->topics->orphans))) {
		TAILQ_REMOVE(&h->topics->orphans, t, orphaned);
		t->orphan = false;
		if (!share_take(t))
			share_end(h, t);
	}
}

void share_end(struct hub *h, struct topic *t)
{
	char why[80];

	snprintf(why, sizeof why, "What you watch takes more than %d MiB in all.",
	         HUB_BODIES_PER_USER >> 20);
	topic_end(h, t, 429, why);
}
