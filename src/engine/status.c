#include "provost/status.h"

#include <string.h>

/* The first row whose prefix fits decides. */
static const struct {
	const char *prefix;
	unsigned status;
	const char *detail;
} SQLSTATES[] = {
    {"23505", 409, "It conflicts with a record that exists already."},
    {"23503", 409, "It refers to a record that does not exist, or is still referred to."},
    {"23P01", 409, "It conflicts with a record that exists already."},
    {"23502", 422, "A value that is required is missing."},
    {"23514", 422, "A value is not allowed."},
    {"22021", 400, "A text holds bytes that are not valid UTF-8."},
    {"22P05", 400, "A text holds a character that the database cannot represent."},
    {"22", 422, "A value is outside of what the database accepts."},
    {"21000", 422, "A value matches more than one record."},
    {"P0001", 422, "The database refused the request."},
    {"40001", 503, "The request kept colliding with others. Try again."},
    {"40P01", 503, "The request kept colliding with others. Try again."},
    {"57014", 503, "The statement was cancelled on the database's side. Try again."},
    {"55P03", 503, "A record is locked. Try again."},
    {"53", 503, "The database is out of resources. Try again."},
    {"57P0", 503, "The database is shutting down or restarting. Try again."},
    {"08", 503, "The connection to the database was lost. Try again."},
    {"25006", 503, "The database does not accept this now. Try again."},
};

static const struct {
	unsigned status;
	const char *detail;
} OUTCOMES[] = {
    [OUTCOME_NO_ROW] = {404, "There is no such record."},
    [OUTCOME_QUEUE_FULL] = {503, "Too many requests are waiting. Try again."},
    [OUTCOME_QUEUE_TIMEOUT] = {503, "No worker became free in time. Try again."},
    [OUTCOME_POOL_TIMEOUT] = {503, "No database connection became free in time. Try again."},
    [OUTCOME_DB_DOWN] = {503, "The database cannot be reached. Try again."},
    [OUTCOME_DB_LOST] = {503, "The connection to the database was lost. Try again."},
    [OUTCOME_DEADLINE] = {504, "The database did not answer within the time allowed."},
    [OUTCOME_TOO_LARGE] = {500, "The result is too large to be sent."},
    [OUTCOME_NO_MEMORY] = {503, "The server is out of memory. Try again."},
    [OUTCOME_UNKNOWN] = {503, "The connection to the database was lost while the change was being "
                              "made, so its outcome is unknown: it may or may not have been done. "
                              "Look before you repeat it."},
    [OUTCOME_ANSWER_LOST] = {500, "The change was committed, but its answer was lost. "
                                  "Do not repeat it."},
    [OUTCOME_ABANDONED] = {503, "The caller has left."},
    [OUTCOME_STOPPING] = {503, "The server is stopping. Try again."},
};

/* Statements that the database ran and refused are no failure of the database's, nor is a queue or
 * a pool of ours that is too small for what is asked. */
bool answer_is_database_failure(const struct answer *a)
{
	static const char *const states[] = {"08", "53", "57P0", "58", "XX"};
	switch (a->outcome) {
	case OUTCOME_DB_DOWN:
	case OUTCOME_DB_LOST:
		return true;
	case OUTCOME_SQL_ERROR:
		for (size_t i = 0; i < ELEMENTSOF(states); i++)
			if (!strncmp(a->sqlstate, states[i], strlen(states[i])))
				return true;
		return false;
	default:
		return false;
	}
}

bool answer_is_timeout(const struct answer *a)
{
	return a->outcome == OUTCOME_DEADLINE || a->outcome == OUTCOME_POOL_TIMEOUT ||
	       a->outcome == OUTCOME_QUEUE_TIMEOUT;
}

/* provost.fail(status, message) raises PTnnn. 0 for anything else. */
static unsigned status_of_fail(const char *sqlstate)
{
	if (strncmp(sqlstate, "PT", 2) || strspn(sqlstate + 2, "0123456789") != 3)
		return 0;
	unsigned n = (unsigned)strtoul(sqlstate + 2, NULL, 10);
	return n >= 400 && n <= 599 ? n : 0;
}

unsigned status_of_answer(const struct answer *a, const char **ret_detail)
{
	if (a->outcome != OUTCOME_SQL_ERROR) {
		ALWAYS(a->outcome < ELEMENTSOF(OUTCOMES) && OUTCOMES[a->outcome].status);
		*ret_detail = OUTCOMES[a->outcome].detail;
		return OUTCOMES[a->outcome].status;
	}
	unsigned raised = status_of_fail(a->sqlstate);
	if (raised) {
		*ret_detail = a->message ? a->message : "";
		return raised;
	}
	for (size_t i = 0; i < ELEMENTSOF(SQLSTATES); i++) {
		if (strncmp(a->sqlstate, SQLSTATES[i].prefix, strlen(SQLSTATES[i].prefix)))
			continue;
		*ret_detail = SQLSTATES[i].detail;
		return SQLSTATES[i].status;
	}
	*ret_detail = "The statement failed. The server's log says why, under the request's id.";
	return 500;
}
