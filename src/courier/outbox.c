#include <errno.h>
#include <libpq-fe.h>
#include <string.h>
#include <time.h>

#include "courier_impl.h"
#include "provost/buf.h"
#include "provost/conn.h"

enum {
	STATEMENT_US = 5000000,
	FULL_NAP_US = 2000, /* while the hub's mailbox is full */
	PURGE_ROWS = 1000,
	REFERENCE_KEPT_S = 600, /* what is too large for a notification: servers fetch it at once */
	COUNT_MAX = 100000,
};

/* ---- asking -------------------------------------------------------------------------- */

static int refusal(const struct pg_result *r)
{
	const char *sqlstate = conn_sqlstate(r);

	if (!*sqlstate)
		return 0;
	if (!strcmp(sqlstate, "42P01") || !strcmp(sqlstate, "3F000"))
		return -ENOENT;
	return !strcmp(sqlstate, "42501") ? -EACCES : -EIO;
}

static int query(struct courier *c, const char *sql, const char *const *values, unsigned n,
                 struct pg_result **ret)
{
	struct conn_step step = {.sql = sql, .values = values, .texts = n, .sync = true};
	int r = conn_pipeline(c->conn, &step, 1, clock_us() + STATEMENT_US, NULL);

	*ret = step.result;
	return r < 0 ? r : refusal(step.result);
}

/* In a transaction of its own: sessions only read, otherwise. All in one round trip. A failure
 * leaves the transaction open, and so the connection is given up. */
static int change_rows(struct courier *c, const char *sql, const char *const *values, unsigned n,
                       uint64_t *ret_rows)
{
	struct conn_step step[] = {
	    {.sql = "/* provost */ BEGIN READ WRITE"},
	    {.sql = sql, .values = values, .texts = n},
	    {.sql = "/* provost */ COMMIT", .sync = true},
	};
	int r = conn_pipeline(c->conn, step, ELEMENTSOF(step), clock_us() + STATEMENT_US, NULL);

	for (size_t i = 0; r == 0 && i < ELEMENTSOF(step); i++)
		r = step[i].result ? refusal(step[i].result) : -EIO;
	if (r == 0 && strcmp(conn_tag(step[2].result), "COMMIT") != 0)
		r = -EIO;
	if (r == 0)
		*ret_rows = strtoull(PQcmdTuples((PGresult *)step[1].result), NULL, 10);
	for (size_t i = 0; i < ELEMENTSOF(step); i++)
		conn_result_free(&step[i].result);
	return r;
}

/* ---- arrays -------------------------------------------------------------------------- */

static void add_text(struct buf *b, const char *s, size_t n)
{
	buf_adds(b, b->len ? ",\"" : "{\"");
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"' || s[i] == '\\')
			buf_addc(b, '\\');
		buf_addc(b, s[i]);
	}
	buf_addc(b, '"');
}

static void add_number(struct buf *b, int64_t n)
{
	buf_addf(b, "%c%lld", b->len ? ',' : '{', (long long)n);
}

/* NULL when out of memory. */
static const char *array(struct buf *b)
{
	buf_adds(b, b->len ? "}" : "{}");
	buf_addc(b, '\0');
	return b->failed ? NULL : b->data;
}

/* ---- the key ------------------------------------------------------------------------- */

int outbox_name_session(struct courier *c)
{
	_cleanup_result_ struct pg_result *result = NULL;

	return query(c,
	             "/* provost */ SELECT pg_catalog.set_config('application_name',"
	             " regexp_replace(current_setting('application_name'), '( courier)?$', ' "
	             "courier'), false)",
	             NULL, 0, &result);
}

int outbox_read_key(struct courier *c, unsigned char key[EVENT_KEY_LEN])
{
	_cleanup_result_ struct pg_result *result = NULL;
	int r = query(c,
	              "/* provost */ SELECT encode(ipad, 'hex'), encode(opad, 'hex')"
	              " FROM provost.event_key",
	              NULL, 0, &result);

	if (r < 0)
		return r;
	const PGresult *found = (const PGresult *)result;
	if (PQntuples(found) != 1)
		return -ENOENT;
	return event_key(PQgetvalue(found, 0, 0), PQgetvalue(found, 0, 1), key) < 0 ? -ENOENT : 0;
}

/* ---- by reference -------------------------------------------------------------------- */

static int take_data(const struct parcels *parcels, const PGresult *r, int row)
{
	int64_t id = strtoll(PQgetvalue(r, row, 0), NULL, 10);
	size_t n = (size_t)PQgetlength(r, row, 1);
	struct parcel *p;

	STAILQ_FOREACH (p, parcels, link) {
		if (p->event.data || p->fetched || p->event.id != id)
			continue;
		p->fetched = malloc(n + 1);
		if (!p->fetched)
			return -ENOMEM;
		memcpy(p->fetched, PQgetvalue(r, row, 1), n + 1);
		p->fetched_len = n;
	}
	return 0;
}

int outbox_fetch(struct courier *c, const struct parcels *parcels)
{
	_cleanup_result_ struct pg_result *result = NULL;
	_cleanup_buf_ struct buf ids = {0};
	const struct parcel *p;
	int r;

	STAILQ_FOREACH (p, parcels, link)
		if (!p->event.data && !p->fetched)
			add_number(&ids, p->event.id);
	if (ids.len == 0)
		return 0;
	const char *const values[] = {array(&ids)};
	if (!values[0])
		return -ENOMEM;
	r = query(c,
	          "/* provost */ SELECT id, data::text FROM provost.outbox"
	          " WHERE id = ANY ($1::bigint[])",
	          values, 1, &result);
	for (int row = 0; r == 0 && row < PQntuples((PGresult *)result); row++)
		r = take_data(parcels, (PGresult *)result, row);
	return r;
}

/* ---- what is kept for users ---------------------------------------------------------- */

/* Of each user a page, which is at least a row; the last tells whether there is more. */
static const char LOAD[] =
    /* clang-format off */
    "/* provost */ SELECT u.n - 1, o.id, o.name, o.data::text, o.n < o.total"
    " FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u (room, after, n)"
    " CROSS JOIN LATERAL ("
    "  SELECT r.*, row_number() OVER w AS n, count(*) OVER () AS total, sum(r.bytes) OVER w - r.bytes AS before"
    "  FROM (SELECT id, name, data, bytes FROM provost.outbox"
    "   WHERE durable AND room = u.room AND id > u.after ORDER BY id LIMIT 1001) r"
    "  WINDOW w AS (ORDER BY r.id)) o"
    " WHERE o.n <= 1000 AND o.before < $3::bigint"
    " ORDER BY u.n, o.id";
/* clang-format on */
_Static_assert(COURIER_PAGE_ROWS == 1000, "as in LOAD");

static int ask(struct courier *c, const struct loads *loads, struct pg_result **ret)
{
	_cleanup_buf_ struct buf rooms = {0}, after = {0}, room = {0};
	const struct load *l;

	STAILQ_FOREACH (l, loads, link) {
		room.len = 0;
		buf_addf(&room, "user:%s", l->subject);
		if (room.failed)
			return -ENOMEM;
		add_text(&rooms, room.data, room.len);
		add_number(&after, l->after);
	}
	const char *const values[] = {array(&rooms), array(&after), "262144"};
	_Static_assert(COURIER_PAGE_BYTES == 262144, "as here");
	return values[0] && values[1] ? query(c, LOAD, values, ELEMENTSOF(values), ret) : -ENOMEM;
}

/* Waits for as long as the hub has no room for it. */
static int hand_over(struct courier *c, const struct hub_kept *k)
{
	for (;;) {
		int r = hub_kept(c->hub, k);
		if (r != -EAGAIN)
			return r;
		pthread_mutex_lock(&c->lock);
		bool stopping = c->stopping;
		pthread_mutex_unlock(&c->lock);
		if (stopping)
			return -ESHUTDOWN;
		nanosleep(&(struct timespec){.tv_nsec = FULL_NAP_US * 1000}, NULL);
	}
}

/* The rows of the `n`-th load, from `*at` on. */
static int answer(struct courier *c, const struct load *l, const PGresult *r, int n, int *at)
{
	struct hub_kept k = {.subject = l->subject, .number = l->number};
	_cleanup_free_ struct hub_row *row = malloc((COURIER_PAGE_ROWS + 1) * sizeof *row);

	if (!row)
		return -ENOMEM;
	for (; *at < PQntuples(r) && atoi(PQgetvalue(r, *at, 0)) == n; ++*at) {
		ALWAYS(k.rows < COURIER_PAGE_ROWS);
		row[k.rows++] = (struct hub_row){.id = strtoll(PQgetvalue(r, *at, 1), NULL, 10),
		                                 .name = PQgetvalue(r, *at, 2),
		                                 .data = PQgetvalue(r, *at, 3),
		                                 .data_len = (size_t)PQgetlength(r, *at, 3)};
		k.more = *PQgetvalue(r, *at, 4) == 't';
	}
	k.row = row;
	COURIER_COUNT(c, loads, 1);
	COURIER_COUNT(c, rows, k.rows);
	return hand_over(c, &k);
}

int outbox_load(struct courier *c, struct loads *loads)
{
	_cleanup_result_ struct pg_result *result = NULL;
	struct load *l;
	int at = 0, r = ask(c, loads, &result);

	/* A hub that has stopped wants no answers. */
	for (int n = 0; (r == 0 || r == -ESHUTDOWN) && (l = STAILQ_FIRST(loads)); n++) {
		r = answer(c, l, (PGresult *)result, n, &at);
		if (r == -ENOMEM)
			break;
		STAILQ_REMOVE_HEAD(loads, link);
		free(l);
	}
	return r == -ESHUTDOWN ? 0 : r;
}

int outbox_acknowledge(struct courier *c, const struct acks *acks, uint64_t *ret_deleted)
{
	_cleanup_buf_ struct buf rooms = {0}, ids = {0}, room = {0};
	const struct ack *a;

	STAILQ_FOREACH (a, acks, link) {
		room.len = 0;
		buf_addf(&room, "user:%s", a->ack.subject);
		if (room.failed)
			return -ENOMEM;
		for (size_t i = 0; i < a->ack.ids; i++) {
			add_text(&rooms, room.data, room.len);
			add_number(&ids, a->ack.id[i]);
		}
	}
	const char *const values[] = {array(&rooms), array(&ids)};
	if (!values[0] || !values[1])
		return -ENOMEM;
	return change_rows(c,
	                   "/* provost */ DELETE FROM provost.outbox o"
	                   " USING unnest($1::text[], $2::bigint[]) AS a (room, id)"
	                   " WHERE o.id = a.id AND o.room = a.room AND o.durable",
	                   values, ELEMENTSOF(values), ret_deleted);
}

/* ---- purging ------------------------------------------------------------------------- */

static const char PURGE[] =
    "/* provost */ DELETE FROM provost.outbox WHERE id IN (SELECT id FROM provost.outbox"
    " WHERE durable = $1::boolean"
    " AND created_at < clock_timestamp() - $2::bigint * interval '1 millisecond'"
    " ORDER BY created_at LIMIT 1000)";
_Static_assert(PURGE_ROWS == 1000, "as in PURGE");

int outbox_purge(struct courier *c, int64_t age_ms, uint64_t *ret_purged, bool *ret_more)
{
	char age[24];
	const char *const kept[] = {"true", age};
	const char *const passing[] = {"false", "600000"};
	uint64_t old = 0, passed = 0;
	int r;

	_Static_assert(REFERENCE_KEPT_S == 600, "as here");
	snprintf(age, sizeof age, "%lld", (long long)age_ms);
	r = change_rows(c, PURGE, kept, ELEMENTSOF(kept), &old);
	if (r == 0)
		r = change_rows(c, PURGE, passing, ELEMENTSOF(passing), &passed);
	*ret_purged = old + passed;
	*ret_more = old >= PURGE_ROWS || passed >= PURGE_ROWS;
	return r;
}

int outbox_count(struct courier *c, uint64_t *ret)
{
	_cleanup_result_ struct pg_result *result = NULL;
	int r = query(c,
	              "/* provost */ SELECT count(*) FROM"
	              " (SELECT FROM provost.outbox WHERE durable LIMIT 100000) o",
	              NULL, 0, &result);

	_Static_assert(COUNT_MAX == 100000, "as here");
	if (r == 0)
		*ret = strtoull(PQgetvalue((PGresult *)result, 0, 0), NULL, 10);
	return r;
}
