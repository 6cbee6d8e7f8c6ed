/* `@path`, `@query` and `@body`: NAME TYPE [options]. */
#include <errno.h>
#include <inttypes.h>

#include "parse.h"
#include "value.h"

enum option_id { O_REQUIRED, O_DEFAULT, O_MIN, O_MAX, O_ENUM, O_TRIM, O_UPPER, O_LOWER, OPTIONS };

static const struct {
	const char *name;
	bool value;
} options[OPTIONS] = {
    [O_REQUIRED] = {"required", false},
    [O_DEFAULT] = {"default", true},
    [O_MIN] = {"min", true},
    [O_MAX] = {"max", true},
    [O_ENUM] = {"enum", true},
    [O_TRIM] = {"trim", false},
    [O_UPPER] = {"upper", false},
    [O_LOWER] = {"lower", false},
};

/* The options as written; what they mean depends on each other. */
struct given {
	bool set[OPTIONS];
	char *value[OPTIONS];
};

static void given_done(struct given *g)
{
	for (size_t i = 0; i < OPTIONS; i++)
		free(g->value[i]);
}

void param_done(struct param *p)
{
	free(p->name);
	free(p->min.text);
	free(p->max.text);
	strlist_done(&p->enumeration);
	free(p->default_value);
	for (size_t i = 0; i < p->members; i++)
		param_done(&p->member[i]); /* one level: members have none */
	free(p->member);
	*p = (struct param){0};
}

/* ---- options ------------------------------------------------------------------------- */

static int option_find(struct slice name)
{
	for (int i = 0; i < OPTIONS; i++)
		if (slice_is(name, options[i].name))
			return i;
	return -EINVAL;
}

static void option_keep(struct parse *ps, const struct param *p, struct option *o, struct given *g)
{
	int i = option_find(o->name);

	if (i < 0) {
		parse_error(ps,
		            "%s: unknown option `%.*s`: there are required, default=, min=, max=, "
		            "enum=, trim, upper and lower",
		            p->name, SHOW(o->name));
	} else if (g->set[i]) {
		parse_error(ps, "%s: `%s` stands twice", p->name, options[i].name);
	} else if (options[i].value && !o->has_value) {
		parse_error(ps, "%s: `%s` needs a value: %s=…", p->name, options[i].name,
		            options[i].name);
	} else if (!options[i].value && o->has_value) {
		parse_error(ps, "%s: `%s` takes no value", p->name, options[i].name);
	} else {
		g->set[i] = true;
		g->value[i] = o->value;
		o->value = NULL;
	}
}

static int options_take(struct parse *ps, struct cursor *c, const char *stop, const struct param *p,
                        struct given *g)
{
	for (;;) {
		_cleanup_option_ struct option o = {0};
		int r = option_take(ps, c, stop, &o);

		if (r <= 0)
			return r;
		option_keep(ps, p, &o, g);
	}
}

/* "text[]", for messages. */
static const char *type_text(const struct param *p, char out[32])
{
	snprintf(out, 32, "%s%s", param_type_name(p->type), p->array ? "[]" : "");
	return out;
}

static bool option_fits(const struct param *p, enum option_id o)
{
	switch (o) {
	case O_MIN:
	case O_MAX:
		return p->array || p->type == TYPE_TEXT || value_has_order(p->type);
	case O_ENUM:
	case O_TRIM:
	case O_UPPER:
	case O_LOWER:
		return p->type == TYPE_TEXT;
	default:
		return true;
	}
}

/* Reports and drops what does not go with the type or with each other. */
static void options_check(struct parse *ps, const struct param *p, struct given *g)
{
	char type[32];

	for (int i = 0; i < OPTIONS; i++) {
		if (!g->set[i] || option_fits(p, (enum option_id)i))
			continue;
		parse_error(ps, "%s: `%s` does not go with %s", p->name, options[i].name,
		            type_text(p, type));
		g->set[i] = false;
	}
	if (g->set[O_UPPER] && g->set[O_LOWER])
		parse_error(ps, "%s: upper and lower exclude each other", p->name);
	if (g->set[O_DEFAULT] && p->in == IN_PATH) {
		parse_error(ps, "%s: a path parameter is always there and needs no default",
		            p->name);
		g->set[O_DEFAULT] = false;
	} else if (g->set[O_DEFAULT] && g->set[O_REQUIRED]) {
		parse_error(ps, "%s: required and default exclude each other", p->name);
	}
}

static void count_read(struct parse *ps, const struct param *p, enum option_id o, const char *text,
                       struct param_bound *ret)
{
	uint64_t v = 0;

	for (const char *c = text; *c; c++) {
		if (*c < '0' || *c > '9' || v > INT32_MAX / 10) {
			parse_error(ps, "%s: %s=%.60s is not a count of %s", p->name,
			            options[o].name, text, p->array ? "elements" : "characters");
			return;
		}
		v = v * 10 + (uint64_t)(*c - '0');
	}
	*ret = (struct param_bound){.set = true, .count = v, .text = xstrdup(text)};
}

static void bound_read(struct parse *ps, const struct param *p, enum option_id o,
                       const struct given *g, struct param_bound *ret)
{
	_cleanup_buf_ struct buf normal = {0};
	const char *why, *text = g->value[o];

	if (!g->set[o])
		return;
	if (p->array || p->type == TYPE_TEXT)
		count_read(ps, p, o, text, ret);
	else if (value_canonical(p->type, text, strlen(text), &normal, &why) < 0)
		parse_error(ps, "%s: %s=%.60s: %s", p->name, options[o].name, text, why);
	else
		*ret = (struct param_bound){.set = true, .text = xstrndup(normal.data, normal.len)};
}

static bool bounds_crossed(const struct param *p)
{
	if (!p->min.set || !p->max.set)
		return false;
	if (p->array || p->type == TYPE_TEXT)
		return p->min.count > p->max.count;
	return value_compare(p->type, (struct slice){p->min.text, strlen(p->min.text)},
	                     (struct slice){p->max.text, strlen(p->max.text)}) > 0;
}

static void enum_item_read(struct parse *ps, const struct param *p, struct slice s,
                           struct strlist *list)
{
	_cleanup_buf_ struct buf normal = {0};
	_cleanup_free_ char *item = xstrndup(s.p, s.n);
	char reason[VALUES_REASON_MAX];

	if (s.n == 0)
		parse_error(ps, "%s: enum has an empty value, which would mean absent", p->name);
	else if (value_normalise(p, s.p, s.n, &normal, reason) < 0)
		parse_error(ps, "%s: the enum value `%.60s` %s", p->name, item, reason);
	else if (normal.len != s.n || memcmp(normal.data, s.p, s.n) != 0)
		parse_error(ps,
		            "%s: the enum value `%.60s` is never reached: trim, upper or lower "
		            "change it first",
		            p->name, item);
	else if (strlist_has(list, item))
		parse_error(ps, "%s: the enum value `%.60s` stands twice", p->name, item);
	else if (list->count == ENDPOINT_ENUM_MAX)
		parse_error(ps, "%s: an enum has at most %d values", p->name, ENDPOINT_ENUM_MAX);
	else
		strlist_add(list, s.p, s.n);
}

static void enum_read(struct parse *ps, struct param *p, const char *text)
{
	struct strlist list = {0};

	for (const char *item = text;;) {
		const char *end = strchrnul(item, '|');

		enum_item_read(ps, p, (struct slice){item, (size_t)(end - item)}, &list);
		if (!*end)
			break;
		item = end + 1;
	}
	/* Only now: the values themselves are not to be checked against it. */
	p->enumeration = list;
}

/* `A|B|C` to an array literal; '' is the empty array. */
static int array_default(const struct param *p, const char *text, struct buf *out,
                         char reason[VALUES_REASON_MAX])
{
	size_t count = 0;
	int r = 0;

	array_begin(out);
	for (const char *item = text; *text;) {
		const char *end = strchrnul(item, '|');
		_cleanup_buf_ struct buf element = {0};

		r = value_normalise(p, item, (size_t)(end - item), &element, reason);
		if (r < 0)
			return r;
		array_add(p->type, element.data ? element.data : "", element.len, count++ == 0,
		          out);
		if (!*end)
			break;
		item = end + 1;
	}
	array_end(out);
	return array_check_count(p, count, reason);
}

/* Of an array of objects: none. */
static void objects_default(struct parse *ps, struct param *p, const char *text)
{
	if (*text)
		parse_error(ps, "%s: the only default of an array of objects is '', the empty one",
		            p->name);
	else if (p->min.set && p->min.count > 0)
		parse_error(ps, "%s: the default must have at least %s elements", p->name,
		            p->min.text);
	else
		p->default_value = xstrdup("[]");
}

static void default_read(struct parse *ps, struct param *p, const char *text)
{
	_cleanup_buf_ struct buf out = {0};
	char reason[VALUES_REASON_MAX];
	int r;

	if (p->members > 0) {
		objects_default(ps, p, text);
		return;
	}
	r = p->array ? array_default(p, text, &out, reason)
	             : value_normalise(p, text, strlen(text), &out, reason);

	if (r < 0)
		parse_error(ps, "%s: the default %s", p->name, reason);
	else
		p->default_value = out.data ? xstrndup(out.data, out.len) : xstrdup("");
}

static void options_apply(struct parse *ps, struct param *p, struct given *g)
{
	options_check(ps, p, g);
	p->required = g->set[O_REQUIRED] || p->in == IN_PATH;
	p->trim = g->set[O_TRIM];
	p->upper = g->set[O_UPPER];
	p->lower = g->set[O_LOWER] && !p->upper;
	bound_read(ps, p, O_MIN, g, &p->min);
	bound_read(ps, p, O_MAX, g, &p->max);
	if (bounds_crossed(p))
		parse_error(ps, "%s: min=%.60s is above max=%.60s", p->name, p->min.text,
		            p->max.text);
	if (g->set[O_ENUM])
		enum_read(ps, p, g->value[O_ENUM]);
	if (g->set[O_DEFAULT])
		default_read(ps, p, g->value[O_DEFAULT]);
}

/* ---- name, type, members ------------------------------------------------------------- */

static int name_read(struct parse *ps, struct cursor *c, struct param *p)
{
	struct slice s = cursor_word(c, "{},");

	if (!is_param_name(s)) {
		parse_error(ps,
		            "`%.*s` is not the name of a parameter: a letter or _, then "
		            "letters, digits and _, at most %d",
		            SHOW(s), ENDPOINT_PARAM_NAME_MAX);
		return -EINVAL;
	}
	p->name = xstrndup(s.p, s.n);
	return 0;
}

static int type_read(struct parse *ps, struct cursor *c, struct param *p)
{
	struct slice s = cursor_word(c, "{},"), base = s;
	int t;

	if (s.n > 2 && memcmp(s.p + s.n - 2, "[]", 2) == 0) {
		p->array = true;
		base.n -= 2;
	}
	t = param_type_parse(base);
	if (t < 0) {
		parse_error(ps,
		            "%s: `%.*s` is not a type: text, integer, bigint, number, numeric, "
		            "boolean, uuid, date, timestamp, json, each also with []",
		            p->name, SHOW(s));
		return -EINVAL;
	}
	p->type = (enum param_type)t;
	return 0;
}

static int member_read(struct parse *ps, struct cursor *c, struct param *parent)
{
	struct param *m;
	struct given given = {0};
	int r;

	if (parent->members == ENDPOINT_MEMBERS_MAX) {
		parse_error(ps, "%s: at most %d members", parent->name, ENDPOINT_MEMBERS_MAX);
		return -EINVAL;
	}
	parent->member = xrealloc(parent->member, parent->members + 1, sizeof(*parent->member));
	m = &parent->member[parent->members++];
	*m = (struct param){.in = IN_BODY, .line = ps->line};
	if (name_read(ps, c, m) < 0 || type_read(ps, c, m) < 0)
		return -EINVAL;
	for (size_t i = 0; i + 1 < parent->members; i++)
		if (strcmp(parent->member[i].name, m->name) == 0)
			parse_error(ps, "%s: the member `%s` stands twice", parent->name, m->name);
	if (m->array)
		parse_error(ps, "%s: the member `%s` cannot be an array: objects are one level",
		            parent->name, m->name);
	r = options_take(ps, c, ",}", m, &given);
	if (r == 0 && !m->array)
		options_apply(ps, m, &given);
	given_done(&given);
	return r;
}

/* Behind `{`. */
static int members_read(struct parse *ps, struct cursor *c, struct param *p)
{
	if (p->in != IN_BODY || p->type != TYPE_JSON || !p->array) {
		parse_error(ps, "%s: members in {} go with @body NAME json[] only", p->name);
		return -EINVAL;
	}
	do {
		if (member_read(ps, c, p) < 0)
			return -EINVAL;
	} while (cursor_take(c, ','));
	if (cursor_take(c, '}'))
		return 0;
	parse_error(ps, "%s: the members' { is not closed", p->name);
	return -EINVAL;
}

static int definition_read(struct parse *ps, struct cursor *c, struct param *p)
{
	struct given given = {0};
	int r = type_read(ps, c, p);

	if (r < 0)
		return r;
	if (p->in == IN_PATH && p->array)
		parse_error(ps, "%s: a path parameter is one value, not an array", p->name);
	if (cursor_take(c, '{') && members_read(ps, c, p) < 0)
		return -EINVAL;
	r = options_take(ps, c, "", p, &given);
	if (r == 0)
		options_apply(ps, p, &given);
	given_done(&given);
	return r;
}

static bool name_is_ours(const char *name)
{
	return strcmp(name, "body") == 0 || strncmp(name, "auth_", 5) == 0;
}

void param_read(struct parse *ps, struct cursor *c, enum param_in in)
{
	struct endpoint *e = ps->e;
	struct param p = {.in = in, .line = ps->line};
	const struct param *other;

	if (e->params == ENDPOINT_PARAMS_MAX) {
		parse_error(ps, "an endpoint has at most %d parameters", ENDPOINT_PARAMS_MAX);
		c->p = c->end;
		return;
	}
	if (name_read(ps, c, &p) < 0) {
		c->p = c->end;
		return;
	}
	other = endpoint_param(e, p.name);
	if (other)
		parse_error(ps, "the parameter `%s` stands twice: first in line %u", p.name,
		            other->line);
	if (name_is_ours(p.name))
		parse_error(ps, "`%s` is Provost's own name: body and auth_… cannot be declared",
		            p.name);
	/* With a broken definition the name still counts as declared. */
	if (definition_read(ps, c, &p) < 0)
		c->p = c->end;
	if (other || name_is_ours(p.name)) {
		param_done(&p);
		return;
	}
	e->param = xrealloc(e->param, e->params + 1, sizeof(*e->param));
	e->param[e->params++] = p;
}
