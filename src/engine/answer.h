/*
 * The one way from a result to an answer.
 */
#ifndef PROVOST_ENGINE_ANSWER_H
#define PROVOST_ENGINE_ANSWER_H

#include "provost/answer.h"
#include "provost/endpoint.h"

struct pg_result;

/* Fills everything of `a` but its times from the statement's result, which is taken over and
 * zeroed. */
void answer_from_result(struct answer *a, const struct endpoint *e, struct pg_result **result);

#endif
