#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIELDS = 5, PRINTED = 20 }; /* of a row in an answer: id, v, grp, w, v of its note */

const char *const violation_name[3] = {"stale", "backwards", "impossible"};

static void *need(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p)
		abort();
	return p;
}

static void raise_to(_Atomic int64_t *at, int64_t v)
{
	int64_t was = atomic_load(at);
	while (was < v && !atomic_compare_exchange_weak(at, &was, v))
		;
}

int model_group(int id, int64_t v)
{
	return (int)((id + (v >> 3)) % GROUPS);
}

void model_key(int id, char *out)
{
	char unit[16];
	int n = sprintf(out, id % 20 ? "key/%d" : "long/%d/", id);
	int len = sprintf(unit, "%d.", id);
	if (id % 20)
		return;
	for (int i = 0; n < 1500; n++, i++)
		out[n] = unit[i % len];
	out[n] = '\0';
}

/* ---- making -------------------------------------------------------------------------- */

static struct view *add_view(struct model *m, enum view_kind kind, int number, int n)
{
	struct view *v = &m->view[m->views++];
	*v = (struct view){.kind = kind, .number = number, .n = n};
	v->row = need((size_t)n, sizeof *v->row);
	v->seen = need((size_t)n, sizeof *v->seen);
	return v;
}

static void set_path(struct view *v, const char *format, int number, const char *key)
{
	int n = key ? asprintf(&v->path, format, key) : asprintf(&v->path, format, number);
	if (n < 0)
		abort();
}

static void add_rows(struct model *m)
{
	char key[KEY_MAX];
	m->first[VIEW_ITEM] = m->views;
	for (int i = 0; i < m->rows; i++) {
		struct view *v = add_view(m, VIEW_ITEM, i, 1);
		v->row[0] = i;
		set_path(v, "/api/items/%d", i, NULL);
	}
	m->first[VIEW_KEY] = m->views;
	for (int i = 0; i < m->rows; i += 2) {
		struct view *v = add_view(m, VIEW_KEY, i, 1);
		v->row[0] = i;
		model_key(i, key);
		set_path(v, "/api/by-key?key=%s", i, key);
	}
}

static void add_lists(struct model *m)
{
	m->first[VIEW_GROUP] = m->views;
	for (int g = 0; g < GROUPS; g++) {
		struct view *v = add_view(m, VIEW_GROUP, g, m->rows);
		for (int i = 0; i < m->rows; i++)
			v->row[i] = i;
		set_path(v, "/api/groups/%d", g, NULL);
	}
	m->first[VIEW_PAGE] = m->views;
	for (int p = 0; p < m->rows / PAGE; p++) {
		struct view *v = add_view(m, VIEW_PAGE, p, PAGE);
		for (int i = 0; i < PAGE; i++)
			v->row[i] = p * PAGE + i;
		set_path(v, "/api/pages/%d", p, NULL);
	}
}

static void add_others(struct model *m)
{
	char ids[256];
	m->first[VIEW_SOME] = m->views;
	for (int s = 0; s < m->rows / PAGE; s++) {
		struct view *v = add_view(m, VIEW_SOME, s, SOME);
		int n = 0;
		for (int i = 0; i < SOME; i++) {
			v->row[i] = s + i * (m->rows / SOME);
			n += sprintf(ids + n, "%sids=%d", i ? "&" : "", v->row[i]);
		}
		set_path(v, "/api/some?%s", 0, ids);
	}
	m->first[VIEW_TOTAL] = m->views;
	set_path(add_view(m, VIEW_TOTAL, 0, 1), "/api/total", 0, "");
	m->first[VIEW_BLINK] = m->views;
	for (int b = 0; b < BLINKS; b++)
		set_path(add_view(m, VIEW_BLINK, b, 1), "/api/blinks/%d", b, NULL);
	m->first[VIEW_KINDS] = m->views;
}

void model_init(struct model *m, int rows)
{
	*m = (struct model){.rows = rows};
	m->row = need((size_t)rows, sizeof *m->row);
	m->view = need((size_t)(rows * 2 + GROUPS + rows / PAGE * 2 + 1 + BLINKS), sizeof *m->view);
	for (int i = 0; i < rows; i++) {
		atomic_store(&m->row[i].acked, 1);
		atomic_store(&m->row[i].foreign, 1);
		atomic_store(&m->row[i].known, 1);
	}
	add_rows(m);
	add_lists(m);
	add_others(m);
}

void model_free(struct model *m)
{
	for (int i = 0; i < m->views; i++) {
		free(m->view[i].path);
		free(m->view[i].row);
		free(m->view[i].seen);
	}
	free(m->view);
	free(m->row);
}

/* ---- writes -------------------------------------------------------------------------- */

void model_write(struct model *m, const int *row, int n)
{
	for (int i = 0; i < n; i++)
		atomic_fetch_add(&m->row[row[i]].inflight, 1);
}

void model_failed(struct model *m, const int *row, int n)
{
	for (int i = 0; i < n; i++)
		atomic_fetch_sub(&m->row[row[i]].inflight, 1);
}

/* Known before it is no longer in flight: who looks at these the other way round sees one of both.
 */
void model_committed(struct model *m, const int *row, const int64_t *v, int n, bool acknowledged)
{
	for (int i = 0; i < n; i++) {
		struct row *r = &m->row[row[i]];
		raise_to(&r->known, v[i]);
		raise_to(acknowledged ? &r->acked : &r->foreign, v[i]);
		atomic_fetch_sub(&r->inflight, 1);
	}
}

void model_snapshot(struct model *m, int64_t *snapshot)
{
	for (int i = 0; i < m->rows; i++)
		snapshot[i] = atomic_load(&m->row[i].foreign);
}

void model_acknowledge(struct model *m, const int64_t *snapshot)
{
	for (int i = 0; i < m->rows; i++)
		raise_to(&m->row[i].acked, snapshot[i]);
}

/* ---- reads --------------------------------------------------------------------------- */

void reading_init(struct reading *r, struct model *m)
{
	*r = (struct reading){.m = m};
	r->acked = need((size_t)m->rows, sizeof *r->acked);
	r->seen = need((size_t)m->rows, sizeof *r->seen);
	r->shown = need((size_t)m->rows, sizeof *r->shown);
}

void reading_free(struct reading *r)
{
	free(r->acked);
	free(r->seen);
	free(r->shown);
}

void reading_begin(struct reading *r, const struct view *v)
{
	struct model *m = r->m;
	r->view = v;
	r->sum = 0;
	for (int i = 0; i < v->n; i++) {
		const struct row *row =
		    v->kind == VIEW_BLINK ? &m->blink[v->number] : &m->row[v->row[i]];
		r->acked[i] = atomic_load(&row->acked);
		r->seen[i] = atomic_load(&v->seen[i]);
		r->shown[i] = false;
	}
	for (int i = 0; v->kind == VIEW_TOTAL && i < m->rows; i++)
		r->sum += atomic_load(&m->row[i].acked);
}

static void report(struct reading *r, enum violation what, const struct answer *a,
                   const char *format, int64_t x, int64_t y, int64_t z)
{
	struct timespec t;
	char text[200];
	if (atomic_fetch_add(&r->m->violations[what], 1) >= PRINTED)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(text, sizeof text, format, x, y, z);
	printf("VIOLATION %s at %ld.%06ld: %.60s: %s (%d, %s)\n", violation_name[what],
	       (long)t.tv_sec, t.tv_nsec / 1000, r->view->path, text, a->status, a->cache);
	fflush(stdout);
}

/* The latest version that may have been committed by now: in flight first, see model_committed. */
static int64_t most(const struct row *row)
{
	int64_t inflight = atomic_load(&row->inflight);
	return atomic_load(&row->known) + inflight;
}

static int index_of(const struct view *v, int64_t id)
{
	if (v->kind == VIEW_GROUP || v->kind == VIEW_PAGE) {
		int64_t i = id - v->row[0];
		return i >= 0 && i < v->n ? (int)i : -1;
	}
	for (int i = 0; i < v->n; i++)
		if (v->row[i] == id)
			return i;
	return -1;
}

static void check_row(struct reading *r, const struct answer *a, const int64_t *f)
{
	const struct view *v = r->view;
	int64_t id = f[0], version = f[1], group = f[2], writer = f[3], note = f[4];
	int i = index_of(v, id);
	if (i < 0 || r->shown[i]) {
		report(r, IMPOSSIBLE, a, "row %" PRId64 " does not belong here, or is there twice",
		       id, 0, 0);
		return;
	}
	r->shown[i] = true;
	if (version < r->acked[i])
		report(r, STALE, a,
		       "row %" PRId64 " is at %" PRId64 ", was acknowledged at %" PRId64, id,
		       version, r->acked[i]);
	else if (version < r->seen[i])
		report(r, BACKWARDS, a, "row %" PRId64 " is at %" PRId64 ", was seen at %" PRId64,
		       id, version, r->seen[i]);
	if (writer % 2)
		report(r, IMPOSSIBLE, a,
		       "row %" PRId64 " at %" PRId64 " is of writer %" PRId64 ", who rolled back",
		       id, version, writer);
	if (group != model_group((int)id, version) || (v->kind == VIEW_GROUP && group != v->number))
		report(r, IMPOSSIBLE, a, "row %" PRId64 " at %" PRId64 " is not of group %" PRId64,
		       id, version, group);
	if (note != version)
		report(r, IMPOSSIBLE, a, "row %" PRId64 " is at %" PRId64 ", its note at %" PRId64,
		       id, version, note);
	if (version > most(&r->m->row[id]))
		report(r, IMPOSSIBLE, a, "nobody wrote row %" PRId64 " at %" PRId64, id, version,
		       0);
	raise_to(&v->seen[i], version);
}

/* Of a group only rows that cannot have been in another one. */
static void check_missing(struct reading *r, const struct answer *a)
{
	const struct view *v = r->view;
	for (int i = 0; i < v->n; i++) {
		int64_t least = r->acked[i];
		if (r->shown[i])
			continue;
		if (v->kind == VIEW_GROUP && (model_group(v->row[i], least) != v->number ||
		                              least >> 3 != most(&r->m->row[v->row[i]]) >> 3))
			continue;
		report(r, v->kind == VIEW_GROUP ? STALE : IMPOSSIBLE, a,
		       "row %" PRId64 " is missing, was acknowledged at %" PRId64, v->row[i], least,
		       0);
	}
}

static void check_total(struct reading *r, const struct answer *a, const int64_t *f)
{
	struct model *m = r->m;
	int64_t at_most = 0, seen = r->seen[0];
	for (int i = 0; i < m->rows; i++)
		at_most += most(&m->row[i]);
	if (f[0] != m->rows)
		report(r, IMPOSSIBLE, a, "%" PRId64 " rows", f[0], 0, 0);
	if (f[1] < r->sum)
		report(r, STALE, a, "the sum is %" PRId64 ", %" PRId64 " was acknowledged", f[1],
		       r->sum, 0);
	else if (f[1] < seen)
		report(r, BACKWARDS, a, "the sum is %" PRId64 ", was seen as %" PRId64, f[1], seen,
		       0);
	if (f[1] > at_most)
		report(r, IMPOSSIBLE, a, "the sum is %" PRId64 ", nobody wrote more than %" PRId64,
		       f[1], at_most, 0);
	raise_to(&r->view->seen[0], f[1]);
}

/* Odd versions are there, even ones are not. */
static void check_blink(struct reading *r, const struct answer *a, const int64_t *f, int n)
{
	int64_t least = r->acked[0] > r->seen[0] ? r->acked[0] : r->seen[0];
	int64_t at_most = atomic_load(&r->m->blink[r->view->number].known);
	if (n == 0) {
		least += least % 2;
		if (least > at_most)
			report(r, STALE, a, "there is none, though there is one at %" PRId64,
			       least - 1, 0, 0);
		else
			raise_to(&r->view->seen[0], least);
		return;
	}
	if (f[0] < r->acked[0])
		report(r, STALE, a, "it is at %" PRId64 ", was acknowledged at %" PRId64, f[0],
		       r->acked[0], 0);
	else if (f[0] < r->seen[0])
		report(r, BACKWARDS, a, "it is at %" PRId64 ", was seen at %" PRId64, f[0],
		       r->seen[0], 0);
	if (f[0] % 2 == 0 || f[0] > at_most)
		report(r, IMPOSSIBLE, a, "it is at %" PRId64 ", nobody wrote more than %" PRId64,
		       f[0], at_most, 0);
	raise_to(&r->view->seen[0], f[0]);
}

int numbers_in(const char *text, int64_t *out, int max)
{
	int n = 0;
	while (n < max) {
		text += strcspn(text, "-0123456789");
		if (!*text)
			break;
		char *end;
		out[n++] = strtoll(text, &end, 10);
		text = end;
	}
	return n;
}

int64_t reading_end(struct reading *r, const struct answer *a)
{
	static _Thread_local int64_t f[8192 * FIELDS];
	int n = a->status == 404 ? 0 : numbers_in(a->body, f, 8192 * FIELDS);
	switch (r->view->kind) {
	case VIEW_TOTAL:
		if (n != 2)
			report(r, IMPOSSIBLE, a, "%" PRId64 " numbers", n, 0, 0);
		else
			check_total(r, a, f);
		return -1;
	case VIEW_BLINK:
		check_blink(r, a, f, n);
		return -1;
	default:
		if (n % FIELDS)
			report(r, IMPOSSIBLE, a, "%" PRId64 " numbers", n, 0, 0);
		for (int i = 0; i + FIELDS <= n; i += FIELDS)
			check_row(r, a, f + i);
		check_missing(r, a);
		return n >= FIELDS ? f[1] : -1;
	}
}
