#include "answer.h"

#include <errno.h>
#include <libpq-fe.h>
#include <string.h>
#include <xxhash.h>

#include "provost/rows.h"

void answer_done(struct answer *a)
{
	if (a->memory_free)
		a->memory_free(a->memory);
	free(a->message);
	*a = (struct answer){0};
}

/* ---- rows as they come --------------------------------------------------------------- */

static int collect_json(struct collector *k, struct pg_result **row)
{
	if (k->rows > 1)
		return 0;
	if (PQgetlength((PGresult *)*row, 0, 0) > ANSWER_BODY_MAX)
		return -E2BIG;
	k->json = *row;
	*row = NULL;
	return 0;
}

static int collect_rendered(struct collector *k, const struct pg_result *row)
{
	if (k->returns == RETURNS_ROW && k->rows > 1)
		return 0;
	if (k->returns == RETURNS_ROWS)
		buf_addc(&k->rendered, k->rows > 1 ? ',' : '[');
	rows_object(row, 0, &k->rendered);
	if (!k->rendered.failed)
		return 0;
	/* An escaped character has at most six bytes: if not even so it was too much, memory was
	 * what there was too little of. */
	size_t most = k->rendered.len + 6 * PQresultMemorySize((const PGresult *)row);
	return most > ANSWER_BODY_MAX ? -E2BIG : -ENOMEM;
}

static int collect(struct row_sink *sink, struct pg_result **row)
{
	struct collector *k = (struct collector *)sink;
	k->rows++;
	if (k->returns == RETURNS_JSON)
		return collect_json(k, row);
	if (k->returns == RETURNS_NONE)
		return 0;
	return collect_rendered(k, *row);
}

void collector_init(struct collector *k, const struct endpoint *e)
{
	*k = (struct collector){
	    .sink.row = collect,
	    .returns = e->returns,
	    .rendered.max = ANSWER_BODY_MAX,
	};
}

void collector_done(struct collector *k)
{
	conn_result_free(&k->json);
	buf_done(&k->rendered);
}

/* ---- the answer ---------------------------------------------------------------------- */

void answer_of_entry(struct answer *a, struct entry *e)
{
	entry_ref(e);
	a->outcome = entry_kind(e) == ENTRY_BODY ? OUTCOME_OK : OUTCOME_NO_ROW;
	a->body = entry_body(e, &a->body_len);
	memcpy(a->etag, entry_etag(e), sizeof a->etag);
	a->memory = e;
	a->memory_free = entry_done;
}

static void result_free(void *r)
{
	PQclear(r);
}

static void set_etag(struct answer *a)
{
	XXH128_canonical_t h;
	XXH128_canonicalFromHash(&h, XXH3_128bits(a->body, a->body_len));
	_Static_assert(sizeof h.digest == sizeof a->etag, "the whole hash");
	memcpy(a->etag, h.digest, sizeof a->etag);
}

/* The one column of the first row, served out of the result itself. */
static void take_json(struct answer *a, struct collector *k)
{
	PGresult *r = (PGresult *)k->json;
	bool null = PQgetisnull(r, 0, 0);
	a->body = null ? "null" : PQgetvalue(r, 0, 0);
	a->body_len = null ? 4 : (size_t)PQgetlength(r, 0, 0);
	a->memory = r;
	a->memory_free = result_free;
	k->json = NULL;
}

static void take_rendered(struct answer *a, struct collector *k)
{
	if (k->returns == RETURNS_ROWS)
		buf_adds(&k->rendered, k->rows ? "]" : "[]");
	char *text = buf_take(&k->rendered, &a->body_len);
	a->body = text;
	a->memory = text;
	a->memory_free = free;
	if (!text)
		a->outcome = OUTCOME_NO_MEMORY;
}

static void take_error(struct answer *a, const struct pg_result *result)
{
	const PGresult *r = (const PGresult *)result;
	const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	a->outcome = OUTCOME_SQL_ERROR;
	snprintf(a->sqlstate, sizeof a->sqlstate, "%s", conn_sqlstate(result));
	a->message = strdup(message ? message : PQresultErrorMessage(r));
}

void answer_make(struct answer *a, struct collector *k, const struct pg_result *result)
{
	ExecStatusType status = PQresultStatus((const PGresult *)result);
	a->outcome = OUTCOME_OK;
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		take_error(a, result);
	else if (k->returns == RETURNS_NONE)
		;
	else if (k->rows == 0 && k->returns != RETURNS_ROWS)
		a->outcome = OUTCOME_NO_ROW;
	else if (k->returns == RETURNS_JSON)
		take_json(a, k);
	else
		take_rendered(a, k);
	if (a->body)
		set_etag(a);
}
