#include <json-c/json.h>
#include <string.h>

#include "http_impl.h"
#include "provost/buf.h"

/* Rendered when a catalogue is published, as part of loading: out of memory exits, as it does
 * there. */
static struct json_object *made(struct json_object *o)
{
	ALWAYS(o);
	return o;
}

static void put(struct json_object *o, const char *key, struct json_object *value)
{
	ALWAYS(json_object_object_add(o, key, made(value)) == 0);
}

static void put_text(struct json_object *o, const char *key, const char *value)
{
	if (value)
		put(o, key, json_object_new_string(value));
}

static struct json_object *texts(const struct strlist *l)
{
	struct json_object *a = made(json_object_new_array());
	for (size_t i = 0; i < l->count; i++)
		json_object_array_add(a, made(json_object_new_string(l->item[i])));
	return a;
}

static struct json_object *parameter(const struct param *p)
{
	struct json_object *o = made(json_object_new_object());
	char type[32];
	snprintf(type, sizeof type, "%s%s", param_type_name(p->type), p->array ? "[]" : "");
	put_text(o, "name", p->name);
	put_text(o, "in", param_in_name(p->in));
	put_text(o, "type", type);
	put(o, "required", json_object_new_boolean(p->required));
	put_text(o, "default", p->default_value);
	put_text(o, "min", p->min.set ? p->min.text : NULL);
	put_text(o, "max", p->max.set ? p->max.text : NULL);
	if (p->enumeration.count)
		put(o, "enum", texts(&p->enumeration));
	if (p->members == 0)
		return o;
	struct json_object *members = made(json_object_new_array());
	for (size_t i = 0; i < p->members; i++) /* one level: they have none */
		json_object_array_add(members, parameter(&p->member[i]));
	put(o, "members", members);
	return o;
}

static struct json_object *endpoint(const struct endpoint *e)
{
	struct json_object *o = made(json_object_new_object());
	struct json_object *roles = texts(&e->roles);
	struct json_object *parameters = made(json_object_new_array());
	if (e->is_public)
		json_object_array_add(roles, made(json_object_new_string("public")));
	for (size_t i = 0; i < e->params; i++)
		json_object_array_add(parameters, parameter(&e->param[i]));
	put_text(o, "name", e->name);
	put_text(o, "method", method_name(e->method));
	put_text(o, "path", e->route);
	put_text(o, "description", e->description);
	put(o, "roles", roles);
	put(o, "parameters", parameters);
	return o;
}

static void index_free(struct snapshot_object *o)
{
	struct http_index *x = (struct http_index *)o;
	for (size_t i = 0; i < x->parts; i++) {
		free(x->part[i].text);
		strlist_done(&x->part[i].roles);
	}
	free(x->part);
	free(x);
}

static void fill_part(struct index_part *p, const struct endpoint *e)
{
	const int form = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
	struct json_object *o = endpoint(e);
	const char *text = json_object_to_json_string_ext(o, form);
	ALWAYS(text);
	p->text = xstrdup(text);
	p->is_public = e->is_public;
	for (size_t i = 0; i < e->roles.count; i++)
		strlist_add(&p->roles, e->roles.item[i], strlen(e->roles.item[i]));
	json_object_put(o);
}

struct http_index *index_new(const struct catalog *catalog)
{
	struct http_index *x = xcalloc(1, sizeof *x);
	x->object.free = index_free;
	x->parts = catalog ? catalog->endpoints : 0;
	x->part = xcalloc(x->parts + 1, sizeof *x->part);
	for (size_t i = 0; i < x->parts; i++)
		fill_part(&x->part[i], catalog->endpoint[i]);
	return x;
}

static bool is_for(const struct index_part *p, const struct identity *i)
{
	return p->is_public || (i && identity_allows(i, &p->roles));
}

char *index_render(const struct http_index *x, const struct identity *i, size_t *ret_len)
{
	_cleanup_buf_ struct buf b = {0};
	const char *comma = "";
	buf_adds(&b, "{\"name\":\"provost\",\"version\":\"" PROVOST_VERSION "\",\"endpoints\":[");
	for (size_t k = 0; k < x->parts; k++) {
		if (!is_for(&x->part[k], i))
			continue;
		buf_adds(&b, comma);
		buf_adds(&b, x->part[k].text);
		comma = ",";
	}
	buf_adds(&b, "]}");
	return buf_take(&b, ret_len);
}
