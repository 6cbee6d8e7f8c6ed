#include "provost/change.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* Of a change: the object, `values`, an array; and the level that json-c keeps for itself. */
enum { DEPTH = 4 };

/* ---- words --------------------------------------------------------------------------- */

/* Behind the prefix, or NULL. */
static const char *after(const char *s, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

/* Copies the token; behind it, or NULL. */
static const char *take_token(const char *s, char token[CHANGE_TOKEN_LEN + 1])
{
	if (strspn(s, "0123456789abcdef") != CHANGE_TOKEN_LEN)
		return NULL;
	memcpy(token, s, CHANGE_TOKEN_LEN);
	token[CHANGE_TOKEN_LEN] = '\0';
	return s + CHANGE_TOKEN_LEN;
}

static int parse_sync(const char *s, struct change *c)
{
	s = take_token(s, c->token);
	c->kind = CHANGE_SYNC;
	return s && !*s ? 0 : -EINVAL;
}

/* Digits to the end, as printf writes them. */
static int parse_number(const char *s, uint64_t *ret)
{
	size_t n = strspn(s, "0123456789");
	uint64_t v = 0;

	if (n == 0 || n > 19 || s[n] || (n > 1 && *s == '0'))
		return -EINVAL;
	for (; *s; s++)
		v = v * 10 + (uint64_t)(*s - '0');
	*ret = v;
	return 0;
}

static int parse_beat(const char *s, struct change *c)
{
	s = take_token(s, c->token);
	c->kind = CHANGE_BEAT;
	return s && *s == ' ' ? parse_number(s + 1, &c->number) : -EINVAL;
}

static int parse_event(const char *s, struct change *c)
{
	c->kind = CHANGE_EVENT;
	c->digest = s;
	c->event = s + CHANGE_DIGEST_LEN + 1;
	return strspn(s, "0123456789abcdef") == CHANGE_DIGEST_LEN && s[CHANGE_DIGEST_LEN] == ' ' &&
	               *c->event == '{'
	           ? 0
	           : -EINVAL;
}

/* ---- JSON ---------------------------------------------------------------------------- */

static void json_putp(struct json_object **o)
{
	json_object_put(*o);
}

/* The whole text as one object, or NULL. */
static struct json_object *parse_json(const char *text, bool *ret_memory)
{
	struct json_tokener *t = json_tokener_new_ex(DEPTH);
	size_t n = strlen(text);
	struct json_object *o = NULL;

	*ret_memory = !t;
	if (!t)
		return NULL;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(t, text, (int)n);
	bool whole =
	    json_tokener_get_error(t) == json_tokener_success && json_tokener_get_parse_end(t) == n;
	json_tokener_free(t);
	if (!whole || !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

/* The text of a string without NUL, which PostgreSQL has none of; NULL for anything else. */
static const char *text_of(struct json_object *o)
{
	if (!json_object_is_type(o, json_type_string))
		return NULL;
	const char *s = json_object_get_string(o);
	return strlen(s) == (size_t)json_object_get_string_len(o) ? s : NULL;
}

static int take_op(struct json_object *o, struct change *c)
{
	static const char *const ops[] = {"INSERT", "UPDATE", "DELETE", "TRUNCATE"};
	const char *s = text_of(o);

	for (size_t i = 0; s && i < ELEMENTSOF(ops); i++)
		if (!strcmp(s, ops[i]))
			c->op = ops[i];
	return c->op ? 0 : -EINVAL;
}

static int take_values(struct json_object *array, struct change_column *to)
{
	if (!json_object_is_type(array, json_type_array))
		return -EINVAL;
	size_t n = json_object_array_length(array);
	to->value = calloc(n + 1, sizeof *to->value);
	if (!to->value)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *s = text_of(json_object_array_get_idx(array, i));
		if (!s)
			return -EINVAL;
		to->value[i] = strdup(s);
		if (!to->value[i])
			return -ENOMEM;
		to->values++;
	}
	return 0;
}

static int take_columns(struct json_object *o, struct change *c)
{
	if (!json_object_is_type(o, json_type_object))
		return -EINVAL;
	c->known = true;
	c->column = calloc((size_t)json_object_object_length(o) + 1, sizeof *c->column);
	if (!c->column)
		return -ENOMEM;
	json_object_object_foreach(o, name, array)
	{
		struct change_column *to = &c->column[c->columns++];
		to->name = strdup(name);
		int r = to->name ? take_values(array, to) : -ENOMEM;
		if (r < 0)
			return r;
	}
	return 0;
}

static int take_key(struct json_object *o, struct change *c)
{
	const char *s = text_of(o);

	for (size_t i = 0; s && i < c->columns; i++)
		if (!strcmp(c->column[i].name, s))
			c->key = c->column[i].name;
	return c->key ? 0 : -EINVAL;
}

static int take_table(struct json_object *o, struct change *c)
{
	const char *s = text_of(o);

	if (!s || !*s)
		return -EINVAL;
	c->table = strdup(s);
	return c->table ? 0 : -ENOMEM;
}

/* Members that a later version may add tell more of the same change, and are passed over. */
static int parse_table(const char *payload, struct change *c)
{
	bool memory;
	_cleanup_(json_putp) struct json_object *o = parse_json(payload, &memory);
	struct json_object *m = NULL;
	int r = o ? 0 : memory ? -ENOMEM : -EINVAL;

	c->kind = CHANGE_TABLE;
	if (r == 0)
		r = take_table(json_object_object_get(o, "table"), c);
	if (r == 0)
		r = take_op(json_object_object_get(o, "op"), c);
	if (r == 0 && json_object_object_get_ex(o, "values", &m))
		r = take_columns(m, c);
	/* A key whose values are not told is of no use, and no harm. */
	if (r == 0 && c->known && json_object_object_get_ex(o, "key", &m))
		r = take_key(m, c);
	return r;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int parse(const char *payload, struct change *c)
{
	const char *rest;

	if ((rest = after(payload, "sync ")))
		return parse_sync(rest, c);
	if ((rest = after(payload, "beat ")))
		return parse_beat(rest, c);
	if ((rest = after(payload, "event ")))
		return parse_event(rest, c);
	if (!strcmp(payload, "epoch")) {
		c->kind = CHANGE_EPOCH;
		return 0;
	}
	return *payload == '{' ? parse_table(payload, c) : -EINVAL;
}

int change_parse(const char *payload, struct change *ret)
{
	struct change c = {0};
	size_t n = strnlen(payload, CHANGE_PAYLOAD_MAX + 1);
	int r = -EINVAL;

	/* json-c looks at the bytes of strings, but not of names. */
	if (n <= CHANGE_PAYLOAD_MAX && utf8_length(payload, n) >= 0)
		r = parse(payload, &c);
	if (r < 0)
		change_done(&c);
	else
		*ret = c;
	return r;
}

void change_done(struct change *c)
{
	for (size_t i = 0; i < c->columns; i++) {
		for (size_t k = 0; k < c->column[i].values; k++)
			free(c->column[i].value[k]);
		free(c->column[i].value);
		free(c->column[i].name);
	}
	free(c->column);
	free(c->table);
	*c = (struct change){0};
}
