/*
 * The one way from a statement's rows to an answer.
 *
 * A collector takes the rows as they come and makes the body of them: of `json` it keeps the first
 * row's result, out of which the body is served, `rows` and `row` are rendered at once. One job's,
 * one try's; its owner frees it with collector_done.
 */
#ifndef PROVOST_ENGINE_ANSWER_H
#define PROVOST_ENGINE_ANSWER_H

#include "provost/answer.h"
#include "provost/buf.h"
#include "provost/cache.h"
#include "provost/conn.h"
#include "provost/endpoint.h"

struct collector {
	struct row_sink sink;
	enum returns returns;
	size_t rows;
	struct pg_result *json; /* the first row */
	struct buf rendered;
};

void collector_init(struct collector *k, const struct endpoint *e);
void collector_done(struct collector *k);

/* Fills everything of `a` but its times from what was collected and from the statement's result.
 * What the body needs is moved out of the collector. */
void answer_make(struct answer *a, struct collector *k, const struct pg_result *result);

/* The same of what is in the cache: the body is served from the entry, which is referenced. */
void answer_of_entry(struct answer *a, struct entry *e);

#endif
