/* The members of a request's body. */
#include <errno.h>
#include <string.h>

#include "value.h"

/* What a byte of a body can become at most, in an array's literal or as JSON: 1e19 is written out.
 * Half of the room is for defaults of members that objects leave out. */
enum { ARENA_FACTOR = 16, ARENA_MORE = 64 << 10 };

struct reader {
	struct values *v;
	const struct endpoint *e;
	struct buf *body; /* NULL: nobody asks for it */
	char name[VALUES_NAME_MAX];
	char reason[VALUES_REASON_MAX];
};

/* What is wrong with what r->name names. */
static int report(struct reader *r)
{
	return values_report(r->v, r->name, strlen(r->name), IN_BODY, r->reason);
}

static int report_as(struct reader *r, const char *reason)
{
	reason_set(r->reason, "%s", reason);
	return report(r);
}

static bool is_full(const struct reader *r)
{
	return r->v->errors == VALUES_ERRORS_MAX;
}

/* ---- one value ----------------------------------------------------------------------- */

static enum json_kind kind_wanted(enum param_type t)
{
	switch (t) {
	case TYPE_INTEGER:
	case TYPE_BIGINT:
	case TYPE_NUMBER:
	case TYPE_NUMERIC:
		return JSON_NUMBER;
	case TYPE_BOOLEAN:
		return JSON_BOOLEAN;
	default:
		return JSON_STRING;
	}
}

static int check_kind(struct reader *r, enum json_kind wanted, struct slice value)
{
	enum json_kind kind = json_kind_of(value);

	if (kind == wanted)
		return 0;
	reason_set(r->reason, "must be %s, not %s", json_kind_name(wanted), json_kind_name(kind));
	return -EINVAL;
}

/* The normal form of one value that is not null, to v->element. */
static int read_one(struct reader *r, const struct param *p, struct slice value)
{
	struct buf *decoded = &r->v->decoded;
	enum json_kind wanted = kind_wanted(p->type);
	const char *why;

	r->v->element.len = 0;
	if (p->type == TYPE_JSON)
		return value_normalise(p, value.p, value.n, &r->v->element, r->reason);
	if (check_kind(r, wanted, value) < 0)
		return -EINVAL;
	if (wanted == JSON_STRING) {
		decoded->len = 0;
		if (json_decode(value, decoded, &why) < 0) {
			reason_set(r->reason, "%s", why);
			return -EINVAL;
		}
		if (decoded->failed)
			return -ENOMEM;
		value = (struct slice){decoded->data ? decoded->data : "", decoded->len};
	}
	return value_normalise(p, value.p, value.n, &r->v->element, r->reason);
}

/* A normal form as JSON. */
static void add_json(struct buf *out, enum param_type t, const char *s, size_t n)
{
	if (t != TYPE_JSON && kind_wanted(t) == JSON_STRING)
		buf_add_json_string(out, s, n);
	else
		buf_add(out, s, n);
}

static void add_name(struct buf *out, const char *name, bool first)
{
	if (!first)
		buf_addc(out, ',');
	buf_add_json_string(out, name, strlen(name));
	buf_addc(out, ':');
}

static struct slice element(const struct reader *r)
{
	const struct buf *b = &r->v->element;

	return (struct slice){b->len ? b->data : "", b->len};
}

/* ---- arrays -------------------------------------------------------------------------- */

static int check_count(struct reader *r, const struct param *p, struct slice value)
{
	struct slice rest = json_inside(value), ignored;
	size_t count = 0;

	while (json_next(&rest, &ignored))
		count++;
	return array_check_count(p, count, r->reason);
}

static void name_element(struct reader *r, const struct param *p, size_t i)
{
	snprintf(r->name, sizeof(r->name), "%s[%zu]", p->name, i);
}

static int read_element(struct reader *r, const struct param *p, struct slice value)
{
	if (p->type != TYPE_JSON && json_kind_of(value) == JSON_NULL) {
		reason_set(r->reason, "must not be null");
		return -EINVAL;
	}
	return read_one(r, p, value);
}

/* To PostgreSQL's literal, and to JSON. Errors within are reported here; negative: out of memory.
 */
static int read_elements(struct reader *r, const struct param *p, struct slice value)
{
	struct slice rest = json_inside(value), one;

	array_begin(&r->v->arena);
	if (r->body)
		buf_addc(r->body, '[');
	for (size_t i = 0; !is_full(r) && json_next(&rest, &one); i++) {
		int err;

		name_element(r, p, i);
		err = read_element(r, p, one);
		if (err == -EINVAL)
			err = report(r);
		else if (err == 0)
			array_add(p->type, element(r).p, element(r).n, i == 0, &r->v->arena);
		if (err < 0)
			return err;
		if (r->body && i > 0)
			buf_addc(r->body, ',');
		if (r->body)
			add_json(r->body, p->type, element(r).p, element(r).n);
	}
	array_end(&r->v->arena);
	if (r->body)
		buf_addc(r->body, ']');
	return 0;
}

/* ---- objects in arrays --------------------------------------------------------------- */

/* What is wrong with a member of the i-th object: `prices[3].week`. */
static int report_member(struct reader *r, const struct param *p, size_t i, const char *name,
                         size_t n)
{
	_cleanup_buf_ struct buf full = {0};

	buf_addf(&full, "%s[%zu].", p->name, i);
	buf_add(&full, name, n);
	if (full.failed)
		return -ENOMEM;
	return values_report(r->v, full.data, full.len, IN_BODY, r->reason);
}

/* The characters that a member's name stands for, or, where it stands for what no text holds, the
 * name as it was written. */
static int decode_name(struct reader *r, struct slice raw, struct slice *ret)
{
	struct buf *decoded = &r->v->decoded;
	const char *why;

	decoded->len = 0;
	if (json_decode(raw, decoded, &why) < 0)
		*ret = json_inside(raw);
	else
		*ret = (struct slice){decoded->data ? decoded->data : "", decoded->len};
	return decoded->failed ? -ENOMEM : 0;
}

static bool is_name(struct slice s, const char *name)
{
	return strlen(name) == s.n && memcmp(s.p, name, s.n) == 0;
}

static const struct param *find_member(const struct param *p, struct slice name)
{
	for (size_t i = 0; i < p->members; i++)
		if (is_name(name, p->member[i].name))
			return &p->member[i];
	return NULL;
}

/* One member to the object's text. -EINVAL: the reason is in r->reason. */
static int read_member(struct reader *r, const struct param *m, struct slice value, bool first)
{
	struct buf *out = &r->v->arena;
	int err = 0;

	if (json_kind_of(value) != JSON_NULL) {
		err = read_one(r, m, value);
	} else if (m->required) {
		reason_set(r->reason, "must not be null");
		err = -EINVAL;
	}
	if (err < 0)
		return err;
	add_name(out, m->name, first);
	if (json_kind_of(value) == JSON_NULL)
		buf_adds(out, "null");
	else
		add_json(out, m->type, element(r).p, element(r).n);
	return 0;
}

/* Members that the object leaves out. */
static int finish_object(struct reader *r, const struct param *p, size_t i, uint64_t seen)
{
	for (size_t k = 0; k < p->members; k++) {
		const struct param *m = &p->member[k];
		int err;

		if (seen & UINT64_C(1) << k)
			continue;
		if (m->default_value) {
			add_name(&r->v->arena, m->name, seen == 0);
			add_json(&r->v->arena, m->type, m->default_value, strlen(m->default_value));
			seen |= UINT64_C(1) << k;
		} else if (m->required) {
			reason_set(r->reason, "is required");
			err = report_member(r, p, i, m->name, strlen(m->name));
			if (err < 0)
				return err;
		}
	}
	return 0;
}

_Static_assert(ENDPOINT_MEMBERS_MAX <= 64, "a bit per member");

static int read_object(struct reader *r, const struct param *p, size_t i, struct slice value)
{
	struct slice rest = json_inside(value), raw, one, name;
	uint64_t seen = 0;
	int err = 0;

	buf_addc(&r->v->arena, '{');
	while (err == 0 && !is_full(r) && json_next_member(&rest, &raw, &one)) {
		const struct param *m;
		uint64_t bit;

		err = decode_name(r, raw, &name);
		if (err < 0)
			break;
		m = find_member(p, name);
		bit = m ? UINT64_C(1) << (m - p->member) : 0;
		if (!m) {
			reason_set(r->reason, "is not declared");
			err = report_member(r, p, i, name.p, name.n);
			continue;
		}
		if (seen & bit)
			reason_set(r->reason, "given more than once");
		err = seen & bit ? -EINVAL : read_member(r, m, one, seen == 0);
		seen |= bit;
		if (err == -EINVAL)
			err = report_member(r, p, i, m->name, strlen(m->name));
	}
	if (err == 0)
		err = finish_object(r, p, i, seen);
	buf_addc(&r->v->arena, '}');
	return err;
}

/* What defaults can add to an object. */
static size_t defaults_length(const struct param *p)
{
	size_t n = 0;

	for (size_t k = 0; k < p->members; k++)
		if (p->member[k].default_value)
			n += strlen(p->member[k].name) + 8 + 6 * strlen(p->member[k].default_value);
	return n;
}

/* Whether there is room for an object of this length with all its defaults. Few bytes of a request
 * must not become many. */
static bool has_room(const struct reader *r, size_t length, size_t defaults)
{
	const struct buf *a = &r->v->arena;

	return a->max - a->len > length * (ARENA_FACTOR / 2) + defaults;
}

static int read_objects(struct reader *r, const struct param *p, struct slice value)
{
	struct slice rest = json_inside(value), one;
	size_t start = r->v->arena.len, defaults = defaults_length(p);

	buf_addc(&r->v->arena, '[');
	for (size_t i = 0; !is_full(r) && json_next(&rest, &one); i++) {
		int err;

		if (i > 0)
			buf_addc(&r->v->arena, ',');
		name_element(r, p, i);
		if (check_kind(r, JSON_OBJECT, one) < 0)
			err = report(r);
		else if (has_room(r, one.n, defaults))
			err = read_object(r, p, i, one);
		else
			return report_as(r, "is one too many, with the defaults of its members");
		if (err < 0)
			return err;
	}
	buf_addc(&r->v->arena, ']');
	if (r->body && !r->v->arena.failed)
		buf_add(r->body, r->v->arena.data + start, r->v->arena.len - start);
	return 0;
}

/* ---- members ------------------------------------------------------------------------- */

static int read_array(struct reader *r, const struct param *p, struct slice value)
{
	int err = check_kind(r, JSON_ARRAY, value);

	if (err == 0)
		err = check_count(r, p, value);
	if (err < 0)
		return report(r);
	return p->members ? read_objects(r, p, value) : read_elements(r, p, value);
}

static int read_scalar(struct reader *r, const struct param *p, struct slice value)
{
	int err = read_one(r, p, value);

	if (err < 0)
		return err == -EINVAL ? report(r) : err;
	buf_add(&r->v->arena, element(r).p, element(r).n);
	if (r->body)
		add_json(r->body, p->type, element(r).p, element(r).n);
	return 0;
}

static int read_value(struct reader *r, size_t index, struct slice value)
{
	const struct param *p = &r->e->param[index];
	struct buf *arena = &r->v->arena;
	size_t start = arena->len;
	int err;

	if (r->body)
		add_name(r->body, p->name, r->body->data && r->body->len == 1);
	if (json_kind_of(value) == JSON_NULL) {
		if (r->body)
			buf_adds(r->body, "null");
		return p->required ? report_as(r, "must not be null") : 0;
	}
	err = p->array ? read_array(r, p, value) : read_scalar(r, p, value);
	buf_addc(arena, '\0');
	r->v->offset[index] = (ptrdiff_t)start;
	return arena->failed ? -ENOMEM : err;
}

/* What the body leaves out; `:body` does not have it. */
static int read_absent(struct reader *r, size_t index)
{
	const struct param *p = &r->e->param[index];
	struct buf *arena = &r->v->arena;

	if (p->default_value) {
		r->v->offset[index] = (ptrdiff_t)arena->len;
		buf_add(arena, p->default_value, strlen(p->default_value) + 1);
		return arena->failed ? -ENOMEM : 0;
	}
	snprintf(r->name, sizeof(r->name), "%s", p->name);
	return p->required ? report_as(r, "is required") : 0;
}

static bool find_param(const struct endpoint *e, struct slice name, size_t *ret)
{
	for (size_t i = 0; i < e->params; i++) {
		if (e->param[i].in == IN_BODY && is_name(name, e->param[i].name)) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static int read_pair(struct reader *r, struct slice raw, struct slice value, bool *seen)
{
	struct slice name;
	size_t index;
	int err = decode_name(r, raw, &name);

	if (err < 0)
		return err;
	if (!find_param(r->e, name, &index)) {
		if (name.n == 0) /* no name at all means the body as a whole */
			name = raw;
		reason_set(r->reason, "is not declared");
		return values_report(r->v, name.p, name.n, IN_BODY, r->reason);
	}
	snprintf(r->name, sizeof(r->name), "%s", r->e->param[index].name);
	if (seen[index])
		return report_as(r, "given more than once");
	seen[index] = true;
	return read_value(r, index, value);
}

static int read_members(struct reader *r, struct slice object)
{
	bool seen[ENDPOINT_PARAMS_MAX] = {0};
	struct slice rest = json_inside(object), name, value;
	int err = 0;

	if (r->body)
		buf_addc(r->body, '{');
	while (err == 0 && !is_full(r) && json_next_member(&rest, &name, &value))
		err = read_pair(r, name, value, seen);
	for (size_t i = 0; i < r->e->params && err == 0; i++)
		if (r->e->param[i].in == IN_BODY && !seen[i])
			err = read_absent(r, i);
	if (!r->body)
		return err;
	buf_add(r->body, "}", 2); /* and a NUL */
	return r->body->failed ? -ENOMEM : err;
}

/* ---- the body ------------------------------------------------------------------------ */

static int read_object_text(struct reader *r, struct slice text)
{
	const char *why;

	if (json_check(text, &why) < 0)
		return report_as(r, why);
	text = json_value(text);
	if (json_kind_of(text) != JSON_OBJECT)
		return report_as(r, "must be a JSON object");
	return read_members(r, text);
}

int values_read_body(struct values *v, const struct endpoint *e, struct slice body)
{
	struct reader r = {.v = v, .e = e};
	size_t room = body.n * ARENA_FACTOR + ARENA_MORE;
	int err;

	ALWAYS(v->count == e->params && v->body.len == 0);
	v->arena.max += room;
	v->element.max = v->body.max = room;
	if (endpoint_binds_body(e))
		r.body = &v->body;
	err = read_object_text(&r, body);
	if (err < 0)
		return err;
	return v->errors > 0 ? -EINVAL : 0;
}

bool values_only_members_wrong(const struct values *v)
{
	for (size_t i = 0; i < v->errors; i++)
		if (v->error[i].in != IN_BODY || !*v->error[i].name)
			return false;
	return true;
}

const char *values_body(const struct values *v)
{
	return v->body.len ? v->body.data : NULL;
}
