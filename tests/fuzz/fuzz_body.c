/*
 * The first byte chooses the members, the rest is a body: what is bound and what stands in :body is
 * valid UTF-8 within its bound and reads as itself; what is wrong is told in UTF-8; memory that
 * other bodies have used before gives the same.
 */
#include <errno.h>
#include <string.h>

#include "provost/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char objects[] =
    "-- @body p json[] {a integer min=1 required, b text default='x\"', c json, d timestamp}\n"
    "-- @body q text default=z";

static const char *const members[] = {
    "-- @body p text trim upper min=1 max=20\n-- @body q text[] lower",
    "-- @body p integer min=-5 required\n-- @body q bigint[] max=3",
    "-- @body p number\n-- @body q numeric[]",
    "-- @body p boolean\n-- @body q uuid",
    "-- @body p date\n-- @body q timestamp[]",
    "-- @body p json\n-- @body q json[] max=4",
    objects,
};

static struct endpoint *endpoints[ELEMENTSOF(members)];

static const struct endpoint *endpoint_for(uint8_t choice)
{
	size_t i = choice % ELEMENTSOF(members);

	if (!endpoints[i]) {
		_cleanup_errors_ struct errors *errs = errors_new();
		_cleanup_free_ char *text =
		    xasprintf("-- @route POST /t\n%s\nSELECT :p, :q, :body", members[i]);

		endpoints[i] = endpoint_parse("t", "t.sql", text, strlen(text), errs);
		ALWAYS(endpoints[i]);
	}
	return endpoints[i];
}

static void check_text(const char *s, size_t max)
{
	size_t n = strnlen(s, max);

	ALWAYS(n < max && utf8_length(s, n) >= 0);
}

static void check_errors(const struct values *v)
{
	ALWAYS(v->errors > 0 && v->errors <= VALUES_ERRORS_MAX);
	for (size_t i = 0; i < v->errors; i++) {
		ALWAYS(v->error[i].in == IN_BODY && *v->error[i].reason);
		check_text(v->error[i].name, VALUES_NAME_MAX);
		check_text(v->error[i].reason, VALUES_REASON_MAX);
	}
}

static int read_body(struct values *v, const struct endpoint *e, const char *s, size_t n)
{
	ALWAYS(values_read(v, e, NULL, 0, (struct slice){"", 0}) == 0);
	return values_read_body(v, e, (struct slice){s, n});
}

/* As a body of its own, :body gives the same values where nothing was left out. */
static void check_again(const struct endpoint *e, const struct values *v)
{
	static struct values kept;
	const char *body = values_body(v);

	ALWAYS(read_body(&kept, e, body, strlen(body)) == 0);
	ALWAYS(strcmp(values_body(&kept), body) == 0);
	for (size_t i = 0; i < v->count; i++) {
		const char *a = values_get(v, i), *b = values_get(&kept, i);

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
	_cleanup_free_ char *body = xcalloc(size, 1);

	memcpy(body, data + 1, size - 1);
	r = read_body(&v, e, body, size - 1);
	ALWAYS(r == 0 || r == -EINVAL);
	ALWAYS(v.arena.len <= v.arena.max && v.body.len <= v.body.max);
	if (r < 0) {
		check_errors(&v);
	} else {
		ALWAYS(utf8_length(v.body.data, v.body.len) >= 0);
		for (size_t i = 0; i < v.count; i++)
			if (values_get(&v, i))
				check_text(values_get(&v, i), v.arena.len + 1);
		check_again(e, &v);
	}
	values_done(&v);
	return 0;
}
