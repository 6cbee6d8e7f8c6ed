#include "answer.h"

#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "provost/conn.h"
#include "provost/rows.h"

void answer_done(struct answer *a)
{
	if (a->memory_free)
		a->memory_free(a->memory);
	free(a->message);
	*a = (struct answer){0};
}

static void result_free(void *r)
{
	PQclear(r);
}

static void set_etag(struct answer *a)
{
	XXH128_canonical_t h;
	XXH128_canonicalFromHash(&h, XXH3_128bits(a->body, a->body_len));
	for (size_t i = 0; i < sizeof h.digest; i++)
		snprintf(a->etag + 2 * i, 3, "%02x", h.digest[i]);
}

/* The one column of the first row, served out of the result itself. */
static void take_json(struct answer *a, struct pg_result **result)
{
	PGresult *r = (PGresult *)*result;
	if (PQntuples(r) == 0) {
		a->outcome = OUTCOME_NO_ROW;
		return;
	}
	bool null = PQgetisnull(r, 0, 0);
	a->body = null ? "null" : PQgetvalue(r, 0, 0);
	a->body_len = null ? 4 : (size_t)PQgetlength(r, 0, 0);
	a->memory = r;
	a->memory_free = result_free;
	*result = NULL;
}

static void render(struct answer *a, const struct endpoint *e, const struct pg_result *result)
{
	_cleanup_buf_ struct buf b = {.max = CONN_RESULT_MAX};
	if (e->returns == RETURNS_ROWS)
		rows_array(result, &b);
	else if (PQntuples((const PGresult *)result) > 0)
		rows_object(result, 0, &b);
	else {
		a->outcome = OUTCOME_NO_ROW;
		return;
	}
	char *text = buf_take(&b, &a->body_len);
	a->body = text;
	a->memory = text;
	a->memory_free = free;
	if (!text)
		a->outcome = OUTCOME_NO_MEMORY;
}

static void take_error(struct answer *a, const PGresult *r)
{
	const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	a->outcome = OUTCOME_SQL_ERROR;
	snprintf(a->sqlstate, sizeof a->sqlstate, "%s", conn_sqlstate((const struct pg_result *)r));
	a->message = strdup(message ? message : PQresultErrorMessage(r));
}

void answer_from_result(struct answer *a, const struct endpoint *e, struct pg_result **result)
{
	a->outcome = OUTCOME_OK;
	switch (PQresultStatus((PGresult *)*result)) {
	case PGRES_TUPLES_OK:
		if (e->returns == RETURNS_JSON)
			take_json(a, result);
		else if (e->returns != RETURNS_NONE)
			render(a, e, *result);
		break;
	case PGRES_COMMAND_OK:
		break;
	default:
		take_error(a, (PGresult *)*result);
	}
	if (a->body)
		set_etag(a);
	conn_result_free(result);
}
