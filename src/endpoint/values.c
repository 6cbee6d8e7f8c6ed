#include <errno.h>
#include <string.h>

#include "percent.h"
#include "value.h"

/* What a byte of the request can become at most: a JSON quote in an array's literal is three more
 * backslashes, a `1` is `true`, 1e19 is written out. */
enum { ARENA_FACTOR = 8, ARENA_PER_PARAM = 64 };

void values_done(struct values *v)
{
	buf_done(&v->arena);
	buf_done(&v->decoded);
	buf_done(&v->element);
	buf_done(&v->body);
	free(v->offset);
	free(v->error);
	free(v->pair);
	*v = (struct values){0};
}

static size_t memory_held(const struct values *v)
{
	return v->arena.cap + v->decoded.cap + v->element.cap + v->body.cap +
	       v->offset_cap * sizeof(*v->offset) + v->error_cap * sizeof(*v->error) +
	       v->pair_cap * sizeof(*v->pair);
}

static void buf_reset(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

void values_reset(struct values *v)
{
	if (memory_held(v) > VALUES_KEEP_MAX) {
		values_done(v);
		return;
	}
	buf_reset(&v->arena);
	buf_reset(&v->decoded);
	buf_reset(&v->element);
	buf_reset(&v->body);
	v->count = 0;
	v->errors = 0;
}

/* Makes room for `n` elements in the array at `*array`. -ENOMEM: it is as it was. */
static int array_room(void *array, size_t *cap, size_t n, size_t size)
{
	void **at = array, *p;

	if (n <= *cap)
		return 0;
	p = realloc(*at, n * size);
	if (!p)
		return -ENOMEM;
	*at = p;
	*cap = n;
	return 0;
}

static bool is_reported(const struct values *v, const char *name, enum param_in in)
{
	for (size_t i = 0; i < v->errors; i++)
		if (v->error[i].in == in && strcmp(v->error[i].name, name) == 0)
			return true;
	return false;
}

/* Cut between characters where it is too long. */
static void name_set(char to[VALUES_NAME_MAX], const char *name, size_t n)
{
	static const char ellipsis[] = "…";
	bool cut = n >= VALUES_NAME_MAX;

	if (cut) {
		n = VALUES_NAME_MAX - sizeof(ellipsis);
		while (((unsigned char)name[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(to, name, n);
	strcpy(to + n, cut ? ellipsis : "");
}

int values_report(struct values *v, const char *name, size_t n, enum param_in in,
                  const char reason[VALUES_REASON_MAX])
{
	struct value_error *error;
	char text[VALUES_NAME_MAX];

	name_set(text, name, n);
	if (v->errors == VALUES_ERRORS_MAX || is_reported(v, text, in))
		return 0;
	if (array_room(&v->error, &v->error_cap, v->errors + 1, sizeof(*error)) < 0)
		return -ENOMEM;
	error = &v->error[v->errors++];
	memcpy(error->name, text, sizeof(error->name));
	error->in = in;
	memcpy(error->reason, reason, sizeof(error->reason));
	return 0;
}

const char *values_get(const struct values *v, size_t i)
{
	ALWAYS(i < v->count);
	return v->offset[i] < 0 ? NULL : v->arena.data + v->offset[i];
}

/* ---- the query string ---------------------------------------------------------------- */

struct query {
	struct values_pair *pair; /* of struct values */
	size_t pairs;
};

/* Whether the raw name decodes to `name`; one that is badly encoded is nobody's. */
static bool name_is(struct slice raw, const char *name)
{
	size_t i = 0;

	for (; *name; name++)
		if (i == raw.n || percent_next(raw, &i, true) != (unsigned char)*name)
			return false;
	return i == raw.n;
}

static bool find_query_param(const struct endpoint *e, struct slice raw, size_t *ret)
{
	for (size_t i = 0; i < e->params; i++) {
		if (e->param[i].in == IN_QUERY && name_is(raw, e->param[i].name)) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static struct slice take_pair(struct slice *query)
{
	const char *amp = memchr(query->p, '&', query->n);
	struct slice s = {query->p, amp ? (size_t)(amp - query->p) : query->n};
	size_t taken = amp ? s.n + 1 : s.n;

	query->p += taken;
	query->n -= taken;
	return s;
}

static size_t count_pairs(struct slice query)
{
	size_t n = 0;

	for (; query.n > 0; n++)
		take_pair(&query);
	return n;
}

/* Splits first and decodes after. Pairs without a declared name, and without a value, are dropped.
 * -E2BIG: more pairs than any honest request has. */
static int query_split(struct values *v, const struct endpoint *e, struct slice query,
                       struct query *ret)
{
	size_t n = count_pairs(query);

	if (n > VALUES_PAIRS_MAX)
		return -E2BIG;
	if (array_room(&v->pair, &v->pair_cap, n, sizeof(*v->pair)) < 0)
		return -ENOMEM;
	ret->pair = v->pair;
	while (query.n > 0) {
		struct slice s = take_pair(&query), name = s;
		const char *equals = memchr(s.p, '=', s.n);
		size_t param;

		if (!equals || equals + 1 == s.p + s.n)
			continue;
		name.n = (size_t)(equals - s.p);
		if (find_query_param(e, name, &param))
			ret->pair[ret->pairs++] =
			    (struct values_pair){param, {equals + 1, s.n - name.n - 1}};
	}
	return 0;
}

/* ---- reading ------------------------------------------------------------------------- */

struct reader {
	struct values *v;
	const struct endpoint *e;
	char reason[VALUES_REASON_MAX];
};

static int report(struct reader *r, const char *name, enum param_in in)
{
	return values_report(r->v, name, strlen(name), in, r->reason);
}

static int decode(struct reader *r, struct slice raw, bool plus)
{
	int err;

	r->v->decoded.len = 0;
	err = percent_decode(raw, plus, &r->v->decoded);
	if (err == -EINVAL)
		reason_set(r->reason, "must be percent-encoded: %% and two hexadecimal digits");
	else if (err == -EILSEQ)
		reason_set(r->reason, "must be UTF-8 without NUL characters");
	return err == -ENOMEM ? err : err < 0 ? -EINVAL : 0;
}

/* 1: a value stands at the end of `out`; 0: it is absent; negative as value_normalise. */
static int read_one(struct reader *r, const struct param *p, struct slice raw, struct buf *out)
{
	const struct buf *decoded = &r->v->decoded;
	int err = decode(r, raw, p->in == IN_QUERY);

	if (err < 0)
		return err;
	if (value_is_absent(p, decoded->data, decoded->len))
		return 0;
	err = value_normalise(p, decoded->data, decoded->len, out, r->reason);
	return err < 0 ? err : 1;
}

static int read_path(struct reader *r, const struct param *p, const struct slice *path,
                     size_t paths)
{
	const struct endpoint *e = r->e;
	size_t n = 0;

	for (size_t i = 0; i < e->segments; i++) {
		if (!e->segment[i].param)
			continue;
		ALWAYS(n < paths);
		if (strcmp(e->segment[i].text, p->name) == 0)
			return read_one(r, p, path[n], &r->v->arena);
		n++;
	}
	ALWAYS(!"a path parameter stands in the route");
	return -EINVAL;
}

static int read_scalar(struct reader *r, const struct param *p, size_t index,
                       const struct query *query)
{
	size_t start = r->v->arena.len;
	int found = 0;

	for (size_t i = 0; i < query->pairs; i++) {
		int err;

		if (query->pair[i].param != index)
			continue;
		if (found) {
			r->v->arena.len = start;
			reason_set(r->reason, "given more than once");
			return -EINVAL;
		}
		err = read_one(r, p, query->pair[i].value, &r->v->arena);
		if (err < 0)
			return err;
		found = err;
	}
	return found;
}

/* "element 3 must be …" */
static void name_element(struct reader *r, size_t element)
{
	char reason[VALUES_REASON_MAX];

	memcpy(reason, r->reason, sizeof(reason));
	reason_set(r->reason, "element %zu %s", element, reason);
}

static int read_elements(struct reader *r, const struct param *p, size_t index,
                         const struct query *query)
{
	struct buf *element = &r->v->element;
	size_t count = 0;
	int err;

	array_begin(&r->v->arena);
	for (size_t i = 0; i < query->pairs; i++) {
		if (query->pair[i].param != index)
			continue;
		element->len = 0;
		err = read_one(r, p, query->pair[i].value, element);
		if (err == -EINVAL)
			name_element(r, count + 1);
		if (err < 0)
			return err;
		if (err == 0)
			continue;
		array_add(p->type, element->data, element->len, count == 0, &r->v->arena);
		count++;
	}
	array_end(&r->v->arena);
	if (count == 0)
		return 0;
	return array_check_count(p, count, r->reason) < 0 ? -EINVAL : 1;
}

static int read_array(struct reader *r, const struct param *p, size_t index,
                      const struct query *query)
{
	size_t start = r->v->arena.len;
	int err = read_elements(r, p, index, query);

	if (err <= 0)
		r->v->arena.len = start;
	return err;
}

/* What the author gave for a parameter that the request leaves out. */
static int read_absent(struct reader *r, const struct param *p)
{
	if (p->default_value) {
		buf_adds(&r->v->arena, p->default_value);
		return 1;
	}
	if (!p->required)
		return 0;
	reason_set(r->reason, "is required");
	return -EINVAL;
}

static int read_param(struct reader *r, size_t index, const struct slice *path, size_t paths,
                      const struct query *query)
{
	const struct param *p = &r->e->param[index];
	struct values *v = r->v;
	size_t start = v->arena.len;
	int err;

	if (p->in == IN_PATH)
		err = read_path(r, p, path, paths);
	else if (p->array)
		err = read_array(r, p, index, query);
	else
		err = read_scalar(r, p, index, query);
	if (err == 0)
		err = read_absent(r, p);
	if (err == -EINVAL)
		return report(r, p->name, p->in);
	if (err <= 0)
		return err;
	buf_addc(&v->arena, '\0');
	v->offset[index] = (ptrdiff_t)start;
	return v->arena.failed ? -ENOMEM : 0;
}

static size_t arena_bound(const struct endpoint *e, const struct slice *path, size_t paths,
                          struct slice query)
{
	size_t n = query.n;

	for (size_t i = 0; i < paths; i++)
		n += path[i].n;
	n *= ARENA_FACTOR;
	for (size_t i = 0; i < e->params; i++)
		n += ARENA_PER_PARAM +
		     (e->param[i].default_value ? strlen(e->param[i].default_value) : 0);
	return n;
}

static int read_all(struct reader *r, const struct slice *path, size_t paths, struct slice query)
{
	struct query q = {0};
	int err = query_split(r->v, r->e, query, &q);

	if (err == -E2BIG) {
		reason_set(r->reason, "must have at most %d parameters", VALUES_PAIRS_MAX);
		err = report(r, "", IN_QUERY);
	} else {
		for (size_t i = 0; i < r->e->params && err == 0; i++)
			if (r->e->param[i].in != IN_BODY)
				err = read_param(r, i, path, paths, &q);
	}
	return err;
}

int values_read(struct values *v, const struct endpoint *e, const struct slice *path, size_t paths,
                struct slice query)
{
	struct reader r = {.v = v, .e = e};
	int err;

	ALWAYS(v->count == 0 && v->errors == 0 && v->arena.len == 0);
	if (e->params == 0)
		return 0;
	if (array_room(&v->offset, &v->offset_cap, e->params, sizeof(*v->offset)) < 0)
		return -ENOMEM;
	v->count = e->params;
	for (size_t i = 0; i < v->count; i++)
		v->offset[i] = -1;
	v->arena.max = v->element.max = arena_bound(e, path, paths, query);
	err = read_all(&r, path, paths, query);
	if (err < 0)
		return err;
	return v->errors > 0 ? -EINVAL : 0;
}
