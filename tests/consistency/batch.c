/* Reads several at a time: POST /api/batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

enum { ITEMS = 6, BODY_MAX = ITEMS * (KEY_MAX + 64) };

/* Takes the next item's answer, which begins at `p`, and ends it with a NUL. Where it ends; NULL
 * when there is none. */
static char *next_item(char *p, struct answer *ret)
{
	p = strstr(p, "{\"path\":");
	char *status = p ? strstr(p, "\"status\":") : NULL;
	char *cache = status ? strstr(status, "\"cache\":") : NULL;
	char *body = cache ? strstr(cache, "\"body\":") : NULL;
	if (!body)
		return NULL;
	*ret = (struct answer){.status = atoi(status + 9)};
	snprintf(ret->cache, sizeof ret->cache, "%.*s", (int)strcspn(cache + 8, ","), cache + 8);
	ret->hit = strstr(ret->cache, "; hit") != NULL;
	ret->body = body + 7;
	char *end = strstr(ret->body, ",{\"path\":");
	if (!end)
		return body + strlen(body);
	*end = '\0';
	return end + 1;
}

static void judge(struct worker *x, struct reading *reading, const struct answer *whole)
{
	char *text = strdup(whole->body), *p = text;
	struct answer a;
	if (!text)
		abort();
	for (int i = 0; i < ITEMS; i++) {
		p = next_item(p, &a);
		if (!p) {
			printf("STRANGE batch: %d of %d answers\n", i, ITEMS);
			atomic_fetch_add(&x->w->n.strange, 1);
			break;
		}
		(void)worker_judge(x, &reading[i], &a);
	}
	free(text);
}

static void ask(struct worker *x, struct reading *reading)
{
	struct counts *n = &x->w->n;
	struct answer a;
	char body[BODY_MAX];
	bool sent;
	int at = sprintf(body, "{\"requests\":[");
	for (int i = 0; i < ITEMS; i++) {
		const struct view *v = worker_choose(x);
		reading_begin(&reading[i], v);
		at += sprintf(body + at, "%s\"%s\"", i ? "," : "", v->path);
	}
	sprintf(body + at, "]}");
	if (client_ask(&x->client, "POST", "/api/batch", body, &a, &sent) < 0) {
		atomic_fetch_add(&n->not_answered, 1);
		worker_pause(x, 1000);
	} else if (a.status == 200) {
		judge(x, reading, &a);
	} else if (a.status == 503) {
		atomic_fetch_add(&n->refused, 1);
	} else if (atomic_fetch_add(&n->strange, 1) < 10) {
		printf("STRANGE batch: %d %.200s\n", a.status, a.body);
	}
}

void *work_batch(void *worker)
{
	struct worker *x = worker;
	struct reading reading[ITEMS];
	for (int i = 0; i < ITEMS; i++)
		reading_init(&reading[i], &x->w->m);
	while (!atomic_load(&x->w->stop)) {
		ask(x, reading);
		worker_pause(x, ITEMS * x->w->read_pause_us);
	}
	for (int i = 0; i < ITEMS; i++)
		reading_free(&reading[i]);
	return NULL;
}
