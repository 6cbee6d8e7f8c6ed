/*
 * model: what may be read, given what was written; says of every answer whether it may be.
 *
 * All in this process, with atomics in place of clocks: what a read may show at least is looked up
 * before its request is sent, what it may show at most after its answer has come. Memory is
 * constant: a few numbers per row, and per row of each view.
 *
 * A read fails when a row is older than
 *   a write through this instance that was acknowledged before the read began, or a commit of
 *   somebody else's that was there before such a write began (NOTIFY keeps the order of commits);
 *   what a read of the same view that had ended by then has shown, whoever it was;
 * when a row that must be there is missing; or when it shows what was never committed: a version
 * that nobody can have written, a writer who rolled back, two tables of different moments.
 *
 * Any thread. Nothing here blocks.
 */
#ifndef CONSISTENCY_MODEL_H
#define CONSISTENCY_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.h"

enum { GROUPS = 100, PAGE = 50, SOME = 7, KEY_MAX = 1600, BLINKS = 16 };

struct row {
	_Atomic int64_t acked;    /* no later read may show less */
	_Atomic int64_t foreign;  /* likewise once a write that begins now is acknowledged */
	_Atomic int64_t known;    /* committed for certain */
	_Atomic int64_t inflight; /* writes that may have been committed, and are not known to be */
};

enum view_kind {
	VIEW_ITEM,
	VIEW_KEY,
	VIEW_GROUP,
	VIEW_PAGE,
	VIEW_SOME,
	VIEW_TOTAL,
	VIEW_BLINK,
	VIEW_KINDS
};

/* What one path shows: at most these rows. */
struct view {
	enum view_kind kind;
	char *path;
	int number; /* of the group, or of the blink */
	int n;
	int *row;
	_Atomic int64_t *seen; /* per row; of a blink: its version */
};

struct model {
	int rows;
	struct row *row;
	struct row blink[BLINKS]; /* `acked` and `known`: of the last write that began */
	struct view *view;
	int views;
	int first[VIEW_KINDS + 1]; /* of each kind, in `view` */
	_Atomic int64_t violations[3];
};

enum violation { STALE, BACKWARDS, IMPOSSIBLE };
extern const char *const violation_name[3];

void model_init(struct model *m, int rows);
void model_free(struct model *m);
int model_group(int id, int64_t v);
void model_key(int id, char *out);

/* ---- writes -------------------------------------------------------------------------- */

/* Before a write of these rows is sent. */
void model_write(struct model *m, const int *row, int n);
/* It was not committed. */
void model_failed(struct model *m, const int *row, int n);
/* It was committed with these versions. */
void model_committed(struct model *m, const int *row, const int64_t *v, int n, bool acknowledged);
/* What is foreign now, before a write through this instance is sent; and when that was
 * acknowledged. `snapshot` is of `rows` numbers. */
void model_snapshot(struct model *m, int64_t *snapshot);
void model_acknowledge(struct model *m, const int64_t *snapshot);

/* ---- reads --------------------------------------------------------------------------- */

/* One reader's; reused. */
struct reading {
	struct model *m;
	const struct view *view;
	int64_t *acked, *seen; /* before the request, per row of the view */
	int64_t sum;           /* likewise, of all rows */
	bool *shown;
};

void reading_init(struct reading *r, struct model *m);
void reading_free(struct reading *r);
void reading_begin(struct reading *r, const struct view *v);
/* An answer of 200, or 404. The version of the view's first row, or -1. Prints what is wrong. */
int64_t reading_end(struct reading *r, const struct answer *a);

/* The numbers in a JSON document. */
int numbers_in(const char *text, int64_t *out, int max);

#endif
