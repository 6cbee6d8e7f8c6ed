/*
 * status: what became of a request for data, in HTTP's terms. Pure functions.
 */
#ifndef PROVOST_STATUS_H
#define PROVOST_STATUS_H

#include "provost/answer.h"

/* The status of an answer that is not OUTCOME_OK, with a sentence for the caller in `*ret_detail`:
 * static, or the message of provost.fail, which the answer owns. */
unsigned status_of_answer(const struct answer *a, const char **ret_detail);
/* Whether the database itself has failed, or cannot be reached: what stale-if-error is for. */
bool answer_is_database_failure(const struct answer *a);
/* Whether something was waited for until its time was over. */
bool answer_is_timeout(const struct answer *a);

#endif
