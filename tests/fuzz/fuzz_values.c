/*
 * The first byte chooses a parameter, the rest is its query string: what comes out is valid UTF-8
 * within the arena's bound, reading the normal form gives itself, and what is wrong is told in
 * UTF-8.
 */
#include <errno.h>
#include <string.h>

#include "provost/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const rules[] = {
    "text",
    "text trim upper min=1 max=20",
    "text trim lower enum=a|b|\xc3\xa9",
    "integer min=-5 max=1000",
    "bigint",
    "number min=-1e300",
    "numeric min=-100.5 max=1e30",
    "boolean",
    "uuid",
    "date min=1900-01-01",
    "timestamp max=2100-01-01",
    "json",
    "text[] trim",
    "json[] max=3",
    "integer[] default=1|2",
    "numeric[]",
    "timestamp[]",
};

static struct endpoint *endpoints[ELEMENTSOF(rules)];

static const struct endpoint *endpoint_for(uint8_t choice)
{
	size_t i = choice % ELEMENTSOF(rules);

	if (!endpoints[i]) {
		_cleanup_errors_ struct errors *errs = errors_new();
		_cleanup_free_ char *text =
		    xasprintf("-- @route GET /t\n-- @query p %s\nSELECT :p", rules[i]);

		endpoints[i] = endpoint_parse("t", "t.sql", text, strlen(text), errs);
		ALWAYS(endpoints[i]);
	}
	return endpoints[i];
}

static void check_errors(const struct values *v)
{
	ALWAYS(v->errors > 0 && v->errors <= VALUES_ERRORS_MAX);
	for (size_t i = 0; i < v->errors; i++) {
		size_t n = strnlen(v->error[i].reason, VALUES_REASON_MAX);

		ALWAYS(n > 0 && n < VALUES_REASON_MAX && utf8_length(v->error[i].reason, n) >= 0);
	}
}

static void check_value(const struct param *p, const char *value)
{
	_cleanup_buf_ struct buf again = {0};
	char reason[VALUES_REASON_MAX];
	size_t n;

	if (!value)
		return;
	n = strlen(value);
	ALWAYS(utf8_length(value, n) >= 0);
	if (p->array)
		return;
	ALWAYS(value_normalise(p, value, n, &again, reason) == 0);
	ALWAYS(again.len == n && (n == 0 || memcmp(again.data, value, n) == 0));
}

/* Memory that other inputs have used before gives the same. */
static void check_reset(const struct endpoint *e, struct slice query, int r, const struct values *v)
{
	static struct values kept;

	ALWAYS(values_read(&kept, e, NULL, 0, query) == r && kept.errors == v->errors);
	for (size_t i = 0; i < v->errors; i++)
		ALWAYS(strcmp(kept.error[i].reason, v->error[i].reason) == 0);
	if (r == 0) {
		const char *a = values_get(&kept, 0), *b = values_get(v, 0);

		ALWAYS(a && b ? strcmp(a, b) == 0 : a == b);
	}
	values_reset(&kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct endpoint *e;
	struct values v = {0};
	int r;

	if (size == 0 || size > 32768)
		return 0;
	e = endpoint_for(data[0]);
	_cleanup_free_ char *query = xcalloc(size, 1);

	memcpy(query, data + 1, size - 1);
	r = values_read(&v, e, NULL, 0, (struct slice){query, size - 1});
	ALWAYS(r == 0 || r == -EINVAL);
	ALWAYS(v.arena.len <= v.arena.max);
	if (r < 0)
		check_errors(&v);
	else
		check_value(&e->param[0], values_get(&v, 0));
	check_reset(e, (struct slice){query, size - 1}, r, &v);
	values_done(&v);
	return 0;
}
