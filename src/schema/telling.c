#include "telling.h"

#include <openssl/evp.h>
#include <string.h>

/* A statement that changes more rows than this tells the table alone. */
enum { ROWS_MAX = 250, PAYLOAD_MAX = 7999, HASH_BYTES = 8 };

static const struct {
	const char *name, *op, *old, *new;
} TRIGGERS[TELLING_TRIGGERS] = {
    {"provost_insert", "INSERT", NULL, "provost_new"},
    {"provost_update", "UPDATE", "provost_old", "provost_new"},
    {"provost_delete", "DELETE", "provost_old", NULL},
    {"provost_truncate", "TRUNCATE", NULL, NULL},
};

void telling_done(struct telling *t)
{
	for (size_t i = 0; i < t->tolds; i++)
		free(t->told[i].column);
	free(t->told);
	*t = (struct telling){0};
}

static char *taken(struct buf *b)
{
	char *text = buf_take(b, NULL);

	ALWAYS(text);
	return text;
}

/* As quote_literal writes it. */
static void add_literal(struct buf *b, const char *text)
{
	if (strchr(text, '\\'))
		buf_addc(b, 'E');
	buf_addc(b, '\'');
	for (const char *p = text; *p; p++) {
		if (*p == '\'' || *p == '\\')
			buf_addc(b, *p);
		buf_addc(b, *p);
	}
	buf_addc(b, '\'');
}

/* For people to read, where it can be. */
static void add_body(struct buf *b, const char *text)
{
	if (strstr(text, "$provost$"))
		add_literal(b, text);
	else
		buf_addf(b, "$provost$%s$provost$", text);
}

static void take_literal(struct buf *b, struct buf *text)
{
	_cleanup_free_ char *t = taken(text);

	add_literal(b, t);
}

/* ---- the function -------------------------------------------------------------------- */

/* The columns of all trees, each once: where it stands in the list, from 0. */
struct columns {
	const struct told_column **column;
	size_t n;
};

static size_t column_at(const struct columns *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->column[i]->name, name) == 0)
			return i;
	return l->n;
}

static struct columns all_columns(const struct telling *t)
{
	struct columns l = {NULL};

	for (size_t i = 0; i < t->tolds; i++)
		for (size_t k = 0; k < t->told[i].columns; k++) {
			const struct told_column *c = &t->told[i].column[k];
			if (column_at(&l, c->name) < l.n)
				continue;
			l.column = xrealloc(l.column, l.n + 1, sizeof *l.column);
			l.column[l.n++] = c;
		}
	return l;
}

/* The payload that names the table alone, as a literal. */
static void add_alone(struct buf *b, const struct told *d, const char *op)
{
	_cleanup_buf_ struct buf text = {0};

	buf_addf(&text, "{\"table\":%s,\"op\":\"%s\"}", d->json, op);
	take_literal(b, &text);
}

/* The payload with the values, as an expression over the changed rows `r`. */
static void add_payload(struct buf *b, const struct told *d, const struct columns *l,
                        const char *op)
{
	_cleanup_buf_ struct buf text = {0};

	buf_addf(&text, "{\"table\":%s,\"op\":\"%s\"", d->json, op);
	for (size_t i = 0; i < d->columns; i++)
		if (d->column[i].key)
			buf_addf(&text, ",\"key\":%s", d->column[i].json);
	buf_adds(&text, ",\"values\":{");
	for (size_t i = 0; i < d->columns; i++) {
		size_t at = column_at(l, d->column[i].name);
		buf_addf(&text, "%s%s:", i ? "," : "", d->column[i].json);
		take_literal(b, &text);
		buf_addf(b,
		         "\n                || coalesce(array_to_json(array_agg(DISTINCT r.c%zu)"
		         " FILTER (WHERE r.c%zu IS NOT NULL))::text, '[]') || ",
		         at, at);
	}
	buf_adds(b, "'}}'");
}

static void add_calls(struct buf *b, const struct telling *t, size_t op, unsigned rows_max)
{
	for (size_t i = 0; i < t->tolds; i++) {
		const struct told *d = &t->told[i];
		buf_adds(b, i ? ",\n            " : "        PERFORM ");
		buf_adds(b, "pg_notify('provost', ");
		if (d->columns > 0)
			buf_addf(b,
			         "CASE WHEN a.n <= %u AND octet_length(a.t%zu) <= %d THEN a.t%zu"
			         " ELSE ",
			         rows_max, i, PAYLOAD_MAX, i);
		add_alone(b, d, TRIGGERS[op].op);
		buf_adds(b, d->columns > 0 ? " END)" : ")");
	}
}

static void add_rows(struct buf *b, const struct columns *l, const char *table)
{
	buf_adds(b, "SELECT");
	for (size_t i = 0; i < l->n; i++)
		buf_addf(b, "%s r.%s::text COLLATE \"C\" AS c%zu", i ? "," : "",
		         l->column[i]->ident, i);
	buf_addf(b, " FROM %s r", table);
}

/* What the statement has changed, as one row of `a`: how many rows, and the payload for each tree.
 */
static void add_aggregate(struct buf *b, const struct telling *t, const struct columns *l,
                          size_t op, unsigned rows_max)
{
	const char *old = TRIGGERS[op].old, *new = TRIGGERS[op].new;

	buf_adds(b, "\n        FROM (SELECT count(*) AS n");
	for (size_t i = 0; i < t->tolds; i++) {
		if (t->told[i].columns == 0)
			continue;
		buf_adds(b, ",\n            ");
		add_payload(b, &t->told[i], l, TRIGGERS[op].op);
		buf_addf(b, " AS t%zu", i);
	}
	buf_adds(b, "\n            FROM (");
	add_rows(b, l, old ? old : new);
	if (old && new) {
		buf_adds(b, "\n                UNION ALL ");
		add_rows(b, l, new);
	}
	/* One row more than is told: that is all that a million cost. */
	buf_addf(b, "\n                LIMIT %u) r) a\n        WHERE a.n > 0;\n", rows_max + 1);
}

static void add_operation(struct buf *b, const struct telling *t, const struct columns *l,
                          size_t op)
{
	/* An update has two versions of each row. */
	unsigned rows_max = TRIGGERS[op].old && TRIGGERS[op].new ? 2 * ROWS_MAX : ROWS_MAX;

	buf_addf(b, "    %s TG_OP = '%s' THEN\n", op ? "ELSIF" : "IF", TRIGGERS[op].op);
	add_calls(b, t, op, rows_max);
	add_aggregate(b, t, l, op, rows_max);
}

/* Tells the tables alone, of whatever operation. */
static void add_fallback(struct buf *b, const struct telling *t, const char *indent)
{
	buf_addf(b, "%sPERFORM ", indent);
	for (size_t i = 0; i < t->tolds; i++) {
		_cleanup_buf_ struct buf text = {0};
		buf_addf(&text, "{\"table\":%s,\"op\":\"", t->told[i].json);
		buf_adds(b, i ? ", pg_notify('provost', " : "pg_notify('provost', ");
		take_literal(b, &text);
		buf_adds(b, " || TG_OP || '\"}')");
	}
	buf_adds(b, ";\n");
}

char *telling_source(const struct telling *t)
{
	struct columns l = all_columns(t);
	struct buf b = {0};

	buf_adds(&b, "\n#variable_conflict use_column\nBEGIN\n");
	for (size_t op = 0; op < TELLING_TRIGGERS - 1; op++)
		add_operation(&b, t, &l, op);
	buf_adds(&b, "    ELSE\n");
	add_fallback(&b, t, "        ");
	/* A column may have been renamed since. Whatever it is: the writer is not to suffer. */
	buf_adds(&b, "    END IF;\n    RETURN NULL;\nEXCEPTION WHEN OTHERS THEN\n");
	add_fallback(&b, t, "    ");
	buf_adds(&b, "    RETURN NULL;\nEND\n");
	free(l.column);
	return taken(&b);
}

/* ---- the triggers -------------------------------------------------------------------- */

/* The columns as a literal of an array's literal. */
static void add_columns(struct buf *b, const struct told *d)
{
	_cleanup_buf_ struct buf text = {0};

	buf_addc(&text, '{');
	for (size_t i = 0; i < d->columns; i++) {
		buf_adds(&text, i ? ",\"" : "\"");
		for (const char *p = d->column[i].name; *p; p++) {
			if (*p == '"' || *p == '\\')
				buf_addc(&text, '\\');
			buf_addc(&text, *p);
		}
		buf_addc(&text, '"');
	}
	buf_addc(&text, '}');
	take_literal(b, &text);
}

/* So that a function which somebody has replaced since is known by it. */
static void add_hash(struct buf *b, const char *source)
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	ALWAYS(EVP_Digest(source, strlen(source), digest, NULL, EVP_sha256(), NULL) == 1);
	for (size_t i = 0; i < HASH_BYTES; i++)
		buf_addf(b, "%02x", digest[i]);
}

char *telling_trigger(const struct telling *t, const char *source, size_t i)
{
	struct buf b = {0};

	buf_addf(&b, "CREATE TRIGGER %s AFTER %s ON %s ", TRIGGERS[i].name, TRIGGERS[i].op, t->sql);
	if (TRIGGERS[i].old || TRIGGERS[i].new)
		buf_adds(&b, "REFERENCING ");
	if (TRIGGERS[i].old)
		buf_addf(&b, "OLD TABLE AS %s ", TRIGGERS[i].old);
	if (TRIGGERS[i].new)
		buf_addf(&b, "NEW TABLE AS %s ", TRIGGERS[i].new);
	buf_addf(&b, "FOR EACH STATEMENT EXECUTE FUNCTION provost.%s('", t->function);
	add_hash(&b, source);
	buf_addc(&b, '\'');
	for (size_t k = 0; k < t->tolds; k++) {
		buf_adds(&b, ", ");
		add_literal(&b, t->told[k].tag);
		buf_adds(&b, ", ");
		add_columns(&b, &t->told[k]);
	}
	buf_addc(&b, ')');
	return taken(&b);
}

/* ---- all of it ----------------------------------------------------------------------- */

static void install_function(const struct telling *t, const char *source, struct buf *b)
{
	_cleanup_free_ char *comment = xasprintf("Provost: tells of changes of %s", t->name);

	buf_addf(b,
	         "CREATE OR REPLACE FUNCTION provost.%s() RETURNS trigger LANGUAGE plpgsql\n"
	         "    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS ",
	         t->function);
	add_body(b, source);
	buf_addf(b, ";\nREVOKE ALL ON FUNCTION provost.%s() FROM %s CASCADE;\n", t->function,
	         t->strangers);
	buf_addf(b, "COMMENT ON FUNCTION provost.%s() IS ", t->function);
	add_literal(b, comment);
	buf_adds(b, ";\n");
}

void telling_install(const struct telling *t, struct buf *b)
{
	_cleanup_free_ char *source = telling_source(t);

	if (!t->source || strcmp(t->source, source) != 0)
		install_function(t, source, b);
	for (size_t i = 0; i < TELLING_TRIGGERS; i++) {
		_cleanup_free_ char *text = telling_trigger(t, source, i);
		if (t->trigger[i] && strcmp(t->trigger[i], text) == 0)
			continue;
		buf_addf(b, "CREATE OR REPLACE %s;\n", text + strlen("CREATE "));
		buf_addf(b, "ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s;\n", t->sql,
		         TRIGGERS[i].name);
	}
}
