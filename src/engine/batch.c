#include <errno.h>

#include "answer.h"
#include "provost/conn.h"
#include "provost/delay.h"
#include "provost/pool.h"
#include "run.h"

/* The fills of a batch whose statements are sent, in their order. */
struct batch {
	struct engine *engine;
	int abandon;
	struct run_counts *counts;
	size_t jobs;
	struct job *job[BATCH_MAX]; /* NULL once it has ended */
	uint64_t timeout_us[BATCH_MAX];
	uint64_t largest_us; /* of them */
	struct collector collector[BATCH_MAX];
	struct conn_step step[BATCH_MAX];
};

static void end(struct batch *b, size_t i)
{
	fill_end(b->engine, b->job[i]);
	lanes_end(b->engine, &b->job[i]);
}

static void end_as(struct batch *b, size_t i, enum outcome outcome)
{
	b->job[i]->answer.outcome = outcome;
	run_log_failure(b->job[i]);
	end(b, i);
}

/* Those that are in the cache by now have ended; the others are to be sent. */
static void gather(struct batch *b, struct job *batch, uint64_t timeout_us)
{
	struct job *j, *next;
	/* Nobody but us changes the list while the batch runs. */
	for (j = TAILQ_FIRST(&batch->members); j; j = next) {
		next = TAILQ_NEXT(j, link);
		if (fill_begin(b->engine, j)) {
			lanes_end(b->engine, &j);
			continue;
		}
		b->timeout_us[b->jobs] = job_timeout_us(j, timeout_us);
		b->largest_us = MAX(b->largest_us, b->timeout_us[b->jobs]);
		b->job[b->jobs++] = j;
	}
}

/* ---- together ------------------------------------------------------------------------ */

static void plan(struct batch *b)
{
	for (size_t i = 0; i < b->jobs; i++) {
		const struct job *j = b->job[i];
		collector_init(&b->collector[i], j->endpoint);
		b->step[i] = (struct conn_step){.stmt = &j->endpoint->stmt,
		                                .values = j->values,
		                                .sink = &b->collector[i].sink,
		                                .sync = true};
	}
}

static void clean_up(struct batch *b)
{
	for (size_t i = 0; i < b->jobs; i++) {
		conn_result_free(&b->step[i].result);
		collector_done(&b->collector[i]);
	}
}

/* Its Sync is reached. What is worth another try stays for later. */
static void settle(struct batch *b, size_t i)
{
	struct job *j = b->job[i];
	const struct pg_result *result = b->step[i].result;
	if (!result || run_is_conflict(result) || conn_forgot(result, &j->endpoint->stmt))
		return;
	answer_make(&j->answer, &b->collector[i], result);
	run_log_failure(j);
	end(b, i);
}

/* The pipeline has ended early, in the turn of `i`. Of a lost connection anybody may be the cause,
 * and all that are left have another try. */
static void stop(struct batch *b, size_t i, int r)
{
	if (r == -ECONNRESET)
		return;
	enum outcome outcome = run_outcome(r, b->abandon);
	if (r != -ECANCELED) {
		end_as(b, i, outcome);
		return;
	}
	for (; i < b->jobs; i++)
		end_as(b, i, outcome);
}

static void exchange(struct batch *b, struct conn *c, uint64_t now_us)
{
	uint64_t begun = now_us, until = now_us + b->largest_us;
	DELAY(DELAY_FILL_START);
	for (size_t i = 0; i < b->jobs; i++)
		job_note_start(b->engine, b->job[i]);
	DELAY(DELAY_FILL_SEND);
	b->counts->statements += (unsigned)b->jobs;
	conn_watch(c, b->abandon);
	int r = conn_pipeline_begin(c, b->step, b->jobs, NULL);
	for (size_t i = 0; i < b->jobs && r >= 0; i++) {
		r = conn_pipeline_next(c, MIN(now_us + b->timeout_us[i], until));
		DELAY(DELAY_FILL_RESULT);
		now_us = clock_us();
		b->job[i]->answer.db_us = (uint32_t)(now_us - begun);
		if (r < 0)
			stop(b, i, r);
		else
			settle(b, i);
	}
	conn_pipeline_end(c);
}

static void run_together(struct batch *b)
{
	struct conn *c;
	uint64_t now;
	int r = run_borrow(b->engine, b->job[0], false, &c, &now);
	for (size_t i = 1; i < b->jobs; i++)
		b->job[i]->answer.queue_us = b->job[0]->answer.queue_us;
	if (r < 0) {
		enum outcome outcome = b->job[0]->answer.outcome;
		for (size_t i = 0; i < b->jobs; i++)
			end_as(b, i, outcome);
		return;
	}
	plan(b);
	exchange(b, c, now);
	pool_release(b->engine->pool, &c);
	clean_up(b);
}

/* ---- one by one ---------------------------------------------------------------------- */

static void run_alone(struct batch *b, size_t i, uint64_t until_us)
{
	uint64_t now = clock_us();
	if (!lanes_is_wanted(b->engine, b->job[i])) {
		end_as(b, i, OUTCOME_ABANDONED);
	} else if (now >= until_us) {
		end_as(b, i, OUTCOME_DEADLINE);
	} else {
		run_statement(b->engine, b->job[i], MIN(b->timeout_us[i], until_us - now),
		              b->abandon, b->counts);
		end(b, i);
	}
}

void batch_run(struct engine *e, struct job *job, uint64_t timeout_us, int abandon,
               struct run_counts *ret)
{
	struct batch b = {.engine = e, .abandon = abandon, .counts = ret};
	gather(&b, job, timeout_us);
	bool together = b.jobs > 1;
	if (together)
		run_together(&b);
	uint64_t until = clock_us() + b.largest_us;
	for (size_t i = 0; i < b.jobs; i++) {
		if (!b.job[i])
			continue;
		ret->retries += together;
		run_alone(&b, i, until);
	}
}
