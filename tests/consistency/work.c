#include "work.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t work_now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void work_time(struct work *w, struct times *t, uint64_t since_us)
{
	uint64_t us = work_now_us() - since_us;
	uint32_t i = atomic_fetch_add(&t[atomic_load(&w->phase)].n, 1);
	if (i < LAGS)
		t[atomic_load(&w->phase)].us[i] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

void worker_init(struct worker *x, struct work *w, int number)
{
	*x = (struct worker){.w = w, .number = number};
	x->random = (w->seed + (uint64_t)number) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	x->snapshot = calloc((size_t)w->m.rows, sizeof *x->snapshot);
	if (!x->snapshot)
		abort();
	client_init(&x->client, w->port);
	reading_init(&x->reading, &w->m);
}

void worker_done(struct worker *x)
{
	client_done(&x->client);
	reading_free(&x->reading);
	free(x->snapshot);
}

/* xorshift64* */
uint64_t worker_random(struct worker *x, uint64_t below)
{
	uint64_t z = x->random;
	z ^= z >> 12;
	z ^= z << 25;
	z ^= z >> 27;
	x->random = z;
	return (z * UINT64_C(2685821657736338717) >> 16) % below;
}

void worker_pause(struct worker *x, unsigned about_us)
{
	if (!about_us)
		return;
	uint64_t us = worker_random(x, 2 * about_us);
	struct timespec t = {.tv_sec = (time_t)(us / 1000000),
	                     .tv_nsec = (long)(us % 1000000) * 1000};
	nanosleep(&t, NULL);
}

int worker_row(struct worker *x)
{
	uint64_t below = worker_random(x, 2) ? x->w->hot : (uint64_t)x->w->m.rows - PROBES;
	return (int)worker_random(x, below);
}

static int compare_rows(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int worker_rows(struct worker *x, int n, int *out)
{
	int kept = 0;
	for (int i = 0; i < n; i++)
		out[i] = n < WIDE ? worker_row(x)
		                  : (int)worker_random(x, (uint64_t)x->w->m.rows - PROBES);
	qsort(out, (size_t)n, sizeof *out, compare_rows);
	for (int i = 0; i < n; i++)
		if (i == 0 || out[i] != out[i - 1])
			out[kept++] = out[i];
	return kept;
}

int64_t worker_stamp(struct worker *x, bool rolls_back)
{
	return ((int64_t)x->number << 32 | x->writes++ << 1) + rolls_back;
}

/* ---- reading ------------------------------------------------------------------------- */

int64_t worker_judge(struct worker *x, struct reading *r, const struct answer *a)
{
	struct counts *n = &x->w->n;
	if (a->status == 503 || a->status == 504) {
		atomic_fetch_add(&n->refused, 1);
		return -1;
	}
	if (a->status != 200 && a->status != 404) {
		if (atomic_fetch_add(&n->strange, 1) < 10)
			printf("STRANGE GET %.60s: %d %.200s\n", r->view->path, a->status, a->body);
		return -1;
	}
	int64_t version = reading_end(r, a);
	int64_t reads = atomic_fetch_add(&n->reads, 1);
	atomic_fetch_add(&n->hits, a->hit);
	if (x->w->operations &&
	    reads + atomic_load(&n->writes) + atomic_load(&n->foreign) >= x->w->operations)
		atomic_store(&x->w->stop, true);
	return version;
}

int64_t worker_look(struct worker *x, const struct view *v)
{
	struct answer a;
	bool sent;
	reading_begin(&x->reading, v);
	if (client_ask(&x->client, "GET", v->path, NULL, &a, &sent) == 0)
		return worker_judge(x, &x->reading, &a);
	atomic_fetch_add(&x->w->n.not_answered, 1);
	worker_pause(x, 1000);
	return -1;
}

static const struct view *view_of(struct worker *x, enum view_kind kind, uint64_t i)
{
	const struct model *m = &x->w->m;
	int views = m->first[kind + 1] - m->first[kind];
	return &m->view[m->first[kind] + (int)(i % (uint64_t)views)];
}

/* Shares of a hundred. */
static const struct {
	enum view_kind kind;
	unsigned share;
} shares[] = {
    {VIEW_ITEM, 45}, {VIEW_KEY, 10},  {VIEW_GROUP, 17}, {VIEW_PAGE, 6},
    {VIEW_SOME, 10}, {VIEW_TOTAL, 3}, {VIEW_BLINK, 9},
};

const struct view *worker_choose(struct worker *x)
{
	uint64_t dice = worker_random(x, 100);
	size_t i = 0;
	while (dice >= shares[i].share)
		dice -= shares[i++].share;
	int row = worker_row(x);
	switch (shares[i].kind) {
	case VIEW_KEY: /* of every second row */
		return view_of(x, VIEW_KEY, (uint64_t)row / 2);
	case VIEW_GROUP: {
		int64_t v = atomic_load(&x->w->m.row[row].known);
		return view_of(x, VIEW_GROUP, (uint64_t)model_group(row, v));
	}
	case VIEW_PAGE:
		return view_of(x, VIEW_PAGE, (uint64_t)row / PAGE);
	default:
		return view_of(x, shares[i].kind, (uint64_t)row);
	}
}

void *work_read(void *worker)
{
	struct worker *x = worker;
	while (!atomic_load(&x->w->stop)) {
		(void)worker_look(x, worker_choose(x));
		worker_pause(x, x->w->read_pause_us);
	}
	return NULL;
}

/* What has just been written is what is most likely to be shown wrongly. */
static void look_back(struct worker *x, int row, int64_t version)
{
	(void)worker_look(x, view_of(x, VIEW_ITEM, (uint64_t)row));
	(void)worker_look(x, view_of(x, VIEW_GROUP, (uint64_t)model_group(row, version)));
	if (version % 8 == 0)
		(void)worker_look(x,
		                  view_of(x, VIEW_GROUP, (uint64_t)model_group(row, version - 1)));
	if (row % 2 == 0)
		(void)worker_look(x, view_of(x, VIEW_KEY, (uint64_t)row / 2));
}

/* ---- writing ------------------------------------------------------------------------- */

enum { FIELDS = 5 };

/* The rows that the answer names were written; the others were not. */
static void committed(struct worker *x, const struct answer *a, const int *row, int n)
{
	int64_t f[WIDE * FIELDS];
	int numbers = numbers_in(a->body, f, WIDE * FIELDS);
	for (int i = 0; i < n; i++) {
		int k = 0;
		while (k + FIELDS <= numbers && f[k] != row[i])
			k += FIELDS;
		if (k + FIELDS <= numbers)
			model_committed(&x->w->m, &row[i], &f[k + 1], 1, true);
		else
			model_failed(&x->w->m, &row[i], 1);
	}
	model_acknowledge(&x->w->m, x->snapshot);
}

static void strange(struct worker *x, const char *path, const struct answer *a)
{
	if (atomic_fetch_add(&x->w->n.strange, 1) < 10)
		printf("STRANGE write %s: %d %.200s\n", path, a->status, a->body);
}

/* What became of a write by what was answered; true: it is acknowledged. */
static bool conclude(struct worker *x, const char *path, const struct answer *a, const int *row,
                     int n, bool rolls_back)
{
	struct counts *c = &x->w->n;
	if (a->status == 200 && !rolls_back) {
		committed(x, a, row, n);
		atomic_fetch_add(&c->writes, 1);
		return true;
	}
	/* Committed, or perhaps; but the versions are not told. */
	if (strstr(a->body, "may or may not have been done") ||
	    strstr(a->body, "The change has been made")) {
		atomic_fetch_add(&c->unknown, 1);
		return false;
	}
	model_failed(&x->w->m, row, n);
	if (a->status == 422 && rolls_back)
		atomic_fetch_add(&c->rolled_back, 1);
	else if (a->status == 503 || a->status == 504)
		atomic_fetch_add(&c->refused, 1);
	else if (a->status == 404) /* its row was deleted and inserted meanwhile */
		atomic_fetch_add(&c->missing, 1);
	else
		strange(x, path, a);
	return false;
}

static void write_rows(struct worker *x, const char *method, const char *path, const char *body,
                       const int *row, int n, bool rolls_back)
{
	struct work *w = x->w;
	struct answer a;
	bool sent;
	model_snapshot(&w->m, x->snapshot);
	model_write(&w->m, row, n);
	uint64_t since = work_now_us();
	if (client_ask(&x->client, method, path, body, &a, &sent) < 0) {
		if (sent)
			atomic_fetch_add(&w->n.unknown, 1);
		else
			model_failed(&w->m, row, n);
		atomic_fetch_add(&w->n.not_answered, 1);
		return;
	}
	if (!conclude(x, path, &a, row, n, rolls_back))
		return;
	work_time(w, w->ack, since);
	for (int i = 0; i < n && i < 3; i++)
		look_back(x, row[i], atomic_load(&w->m.row[row[i]].acked));
}

static void write_one(struct worker *x)
{
	char path[64], body[64];
	int row = worker_row(x);
	bool rolls_back = worker_random(x, 10) == 0;
	snprintf(path, sizeof path, "/api/items/%d", row);
	snprintf(body, sizeof body, "{\"w\":%" PRId64 "}", worker_stamp(x, rolls_back));
	write_rows(x, "PATCH", path, body, &row, 1, rolls_back);
}

static void write_several(struct worker *x, int most)
{
	char body[16 * WIDE + 64];
	int row[WIDE], n = worker_rows(x, most, row), at = 0;
	bool rolls_back = worker_random(x, 10) == 0;
	at += sprintf(body + at, "{\"w\":%" PRId64 ",\"ids\":[", worker_stamp(x, rolls_back));
	for (int i = 0; i < n; i++)
		at += sprintf(body + at, "%s%d", i ? "," : "", row[i]);
	sprintf(body + at, "]}");
	write_rows(x, "POST", "/api/bump", body, row, n, rolls_back);
}

void *work_write(void *worker)
{
	struct worker *x = worker;
	while (!atomic_load(&x->w->stop)) {
		uint64_t dice = worker_random(x, 1000);
		if (dice < 800)
			write_one(x);
		else if (dice < 998)
			write_several(x, 2 + (int)worker_random(x, 18));
		else
			write_several(x, WIDE);
		worker_pause(x, x->w->write_pause_us);
	}
	return NULL;
}

/* ---- rows that come and go ----------------------------------------------------------- */

/* Until it is acknowledged: a write that comes late does nothing. */
static void blink(struct worker *x, int b)
{
	struct row *r = &x->w->m.blink[b];
	int64_t v = atomic_load(&r->known) + 1;
	char path[64], body[64];
	struct answer a;
	bool sent;
	atomic_store(&r->known, v);
	snprintf(path, sizeof path, v % 2 ? "/api/blinks/%d" : "/api/blinks/%d?v=%" PRId64, b, v);
	snprintf(body, sizeof body, "{\"v\":%" PRId64 "}", v);
	while (!atomic_load(&x->w->stop)) {
		int r1 = client_ask(&x->client, v % 2 ? "PUT" : "DELETE", path, v % 2 ? body : NULL,
		                    &a, &sent);
		if (r1 == 0 && a.status == 200) {
			atomic_store(&r->acked, v);
			atomic_fetch_add(&x->w->n.writes, 1);
			(void)worker_look(x, view_of(x, VIEW_BLINK, (uint64_t)b));
			return;
		}
		if (r1 == 0 && a.status != 503 && a.status != 504)
			strange(x, path, &a);
		worker_pause(x, 5000);
	}
}

void *work_blink(void *worker)
{
	struct worker *x = worker;
	while (!atomic_load(&x->w->stop)) {
		blink(x, (int)worker_random(x, BLINKS));
		worker_pause(x, x->w->write_pause_us);
	}
	return NULL;
}

/* ---- invalidating by hand ------------------------------------------------------------ */

/* A tag that every write raises as well, and that many answers carry. */
void *work_invalidate(void *worker)
{
	struct worker *x = worker;
	struct answer a;
	bool sent;
	while (!atomic_load(&x->w->stop)) {
		if (client_ask(&x->client, "DELETE", "/api/admin/cache?tag=item", NULL, &a,
		               &sent) == 0 &&
		    a.status == 200)
			atomic_fetch_add(&x->w->n.invalidated, 1);
		worker_pause(x, x->w->invalidate_pause_us);
	}
	return NULL;
}
