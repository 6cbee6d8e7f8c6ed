/*
 * work: the threads that write and read, and what they count.
 */
#ifndef CONSISTENCY_WORK_H
#define CONSISTENCY_WORK_H

#include "model.h"

enum {
	PROBES = 4, /* the last rows are the prober's own */
	LAGS = 1 << 15,
	PHASES = 4,
	WIDE = 300, /* rows of an update that no notification can name */
};

/* Times, in microseconds; the first LAGS of them. */
struct times {
	_Atomic uint32_t n;
	uint32_t us[LAGS];
};

struct counts {
	_Atomic int64_t reads, hits, missing, not_answered;
	_Atomic int64_t writes, rolled_back, refused, unknown;
	_Atomic int64_t foreign, foreign_rolled_back, foreign_unknown, wide, truncated;
	_Atomic int64_t invalidated, strange;
};

struct work {
	struct model m;
	unsigned short port;
	const char *dsn;
	uint64_t seed;
	unsigned hot; /* the first rows, which half of all that is done is about */
	unsigned read_pause_us, write_pause_us, invalidate_pause_us;
	int64_t operations; /* to stop after; 0: none */
	struct counts n;
	struct times lag[PHASES], ack[PHASES];
	_Atomic int phase;
	_Atomic bool stop;
	_Atomic int wide, truncate; /* to be done */
};

struct worker {
	struct work *w;
	int number; /* of all workers: from 1 */
	uint64_t random;
	struct client client;
	struct reading reading;
	int64_t writes;
	int64_t *snapshot;
};

/* Each takes a struct worker, and returns once `stop` is set. */
void *work_read(void *worker);
void *work_batch(void *worker);
void *work_write(void *worker);
void *work_foreign(void *worker);
void *work_blink(void *worker);
void *work_probe(void *worker);
void *work_invalidate(void *worker);

void worker_init(struct worker *x, struct work *w, int number);
void worker_done(struct worker *x);
uint64_t worker_random(struct worker *x, uint64_t below);
void worker_pause(struct worker *x, unsigned about_us);
/* A row to write to. */
int worker_row(struct worker *x);
/* Ascending, each once. Returns how many. */
int worker_rows(struct worker *x, int n, int *out);
int64_t worker_stamp(struct worker *x, bool rolls_back);
/* Asks for a view and has the answer checked: the version of its first row, or -1. */
int64_t worker_look(struct worker *x, const struct view *v);
int64_t worker_judge(struct worker *x, struct reading *r, const struct answer *a);
/* A view to read. */
const struct view *worker_choose(struct worker *x);
void work_time(struct work *w, struct times *t, uint64_t since_us);
uint64_t work_now_us(void);

#endif
