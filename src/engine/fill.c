#include <string.h>

#include "answer.h"
#include "engine_impl.h"
#include "provost/delay.h"
#include "provost/key.h"
#include "provost/tags.h"
#include "run.h"

/* Whether somebody else's fill has stored it between the caller's look and this job's turn: nobody
 * may hold the cache's lock and the engine's, so the caller cannot look again as it begins one. */
static bool answer_from_cache(struct engine *e, struct job *j)
{
	if (!endpoint_is_cached(j->endpoint))
		return false;
	_cleanup_entry_ struct entry *entry =
	    cache_peek(e->cache, j->key, &j->endpoint->freshness, clock_ms());
	if (!entry)
		return false;
	answer_of_entry(&j->answer, entry);
	entry_ref(entry);
	j->entry = entry;
	return true;
}

static void note_tags(struct engine *e, struct job *j)
{
	const char *value[ENDPOINT_PARAMS_MAX];
	/* Whether or not it is covered now: it may be when the answer is there. */
	if (j->endpoint->opaque)
		return;
	key_values(j->endpoint, j->key.bytes, j->key.len, value, NULL, NULL);
	j->slots = tags_of(e->generations, j->endpoint, value, j->slot, ELEMENTSOF(j->slot));
}

/* A body, or that there is none: what a request with the same key may be answered. */
static bool is_worth_storing(const struct job *j)
{
	const struct answer *a = &j->answer;
	return endpoint_is_cached(j->endpoint) &&
	       (a->outcome == OUTCOME_NO_ROW || (a->outcome == OUTCOME_OK && a->body));
}

static void store(struct engine *e, struct job *j)
{
	const struct answer *a = &j->answer;
	struct entry_parts parts = {
	    .kind = a->outcome == OUTCOME_OK ? ENTRY_BODY : ENTRY_ABSENCE,
	    .key = j->key,
	    .body = a->body,
	    .body_len = a->body_len,
	    .slot = j->slot,
	    .slots = j->slots,
	    .start = atomic_load_explicit(&j->start, memory_order_relaxed), /* our own store */
	    .started_ms = atomic_load_explicit(&j->started_ms, memory_order_relaxed),
	};
	DELAY(DELAY_STORE);
	if (BROKEN(RULE_STORE))
		parts.start = generations_now(e->generations);
	memcpy(parts.etag, a->etag, sizeof parts.etag);
	/* So that what is too large is not copied first. */
	if (!cache_would_store(e->cache, parts.key.len + parts.body_len))
		return;
	_cleanup_entry_ struct entry *entry = entry_new(&parts);
	j->stored = entry && cache_put(e->cache, entry, &j->endpoint->freshness, clock_ms()) == 0;
}

bool fill_begin(struct engine *e, struct job *j)
{
	note_tags(e, j);
	/* Before the look: who joins after a change that the look did not see must not get it. */
	job_note_start(e, j);
	return answer_from_cache(e, j);
}

void fill_end(struct engine *e, struct job *j)
{
	if (is_worth_storing(j))
		store(e, j);
}

void fill_run(struct engine *e, struct job *j, uint64_t timeout_us, int abandon,
              struct run_counts *ret)
{
	if (fill_begin(e, j))
		return;
	run_statement(e, j, timeout_us, abandon, ret);
	fill_end(e, j);
}
