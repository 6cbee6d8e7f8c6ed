#include <json-c/json.h>
#include <string.h>

#include "http_impl.h"
#include "provost/pool.h"

/* ---- the index
 * ----------------------------------------------------------------------------------- */

static struct json_object *texts(const struct strlist *l)
{
	struct json_object *a = json_object_new_array();
	for (size_t i = 0; i < l->count; i++)
		json_object_array_add(a, json_object_new_string(l->item[i]));
	return a;
}

static void put(struct json_object *o, const char *key, const char *value)
{
	if (value)
		json_object_object_add(o, key, json_object_new_string(value));
}

static struct json_object *parameter(const struct param *p)
{
	struct json_object *o = json_object_new_object();
	char type[32];
	snprintf(type, sizeof type, "%s%s", param_type_name(p->type), p->array ? "[]" : "");
	put(o, "name", p->name);
	put(o, "in", param_in_name(p->in));
	put(o, "type", type);
	json_object_object_add(o, "required", json_object_new_boolean(p->required));
	put(o, "default", p->default_value);
	put(o, "min", p->min.set ? p->min.text : NULL);
	put(o, "max", p->max.set ? p->max.text : NULL);
	if (p->enumeration.count)
		json_object_object_add(o, "enum", texts(&p->enumeration));
	return o;
}

static struct json_object *roles(const struct endpoint *e)
{
	struct json_object *a = texts(&e->roles);
	if (e->is_public)
		json_object_array_add(a, json_object_new_string("public"));
	return a;
}

static struct json_object *endpoint(const struct endpoint *e)
{
	struct json_object *o = json_object_new_object();
	struct json_object *parameters = json_object_new_array();
	put(o, "name", e->name);
	put(o, "method", method_name(e->method));
	put(o, "path", e->route);
	put(o, "description", e->description);
	json_object_object_add(o, "roles", roles(e));
	for (size_t i = 0; i < e->params; i++)
		json_object_array_add(parameters, parameter(&e->param[i]));
	json_object_object_add(o, "parameters", parameters);
	return o;
}

static void json_free(void *o)
{
	json_object_put(o);
}

/* What may be called. */
static enum MHD_Result index_answer(struct request *q)
{
	struct catalog *c = (struct catalog *)snapshot_use(http_of(q)->catalog);
	struct json_object *o = json_object_new_object();
	struct json_object *list = json_object_new_array();
	put(o, "name", "provost");
	put(o, "version", PROVOST_VERSION);
	for (size_t i = 0; c && i < c->endpoints; i++)
		json_object_array_add(list, endpoint(c->endpoint[i]));
	json_object_object_add(o, "endpoints", list);
	size_t len;
	const char *text =
	    json_object_to_json_string_length(o, JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	return respond_json(q, 200, text, len, json_free, o);
}

/* ---- health
 * -------------------------------------------------------------------------------------- */

static enum MHD_Result livez(struct request *q)
{
	static const char body[] = "{\"status\":\"alive\"}";
	return respond_json(q, 200, body, sizeof body - 1, NULL, NULL);
}

/* 200 from ready until the stop, also while the database is down: an instance that still answers
 * what it can must not be taken out for what all instances share. */
static enum MHD_Result readyz(struct request *q)
{
	struct http *h = http_of(q);
	static const char *const names[] = {"starting", "ready", "draining", "draining"};
	int phase = atomic_load_explicit(&h->phase, memory_order_relaxed);
	char text[80];
	int n = snprintf(text, sizeof text, "{\"status\":\"%s\",\"database\":\"%s\"}", names[phase],
	                 pool_is_up(h->pool) ? "up" : "down");
	char *body = strdup(text);
	if (!body)
		return MHD_NO;
	return respond_json(q, phase == HTTP_READY ? 200 : 503, body, (size_t)n, free, body);
}

/* ---- which
 * --------------------------------------------------------------------------------------- */

static const struct {
	const char *path;
	enum MHD_Result (*answer)(struct request *q);
} BUILTINS[] = {
    {"/", index_answer},
    {"/livez", livez},
    {"/readyz", readyz},
};

bool builtin_answer(struct request *q, enum MHD_Result *ret)
{
	const struct slice path = q->parsed.path;
	const unsigned get = 1u << METHOD_GET;
	for (size_t i = 0; i < ELEMENTSOF(BUILTINS); i++) {
		if (strlen(BUILTINS[i].path) != path.n || memcmp(BUILTINS[i].path, path.p, path.n))
			continue;
		if (!strcmp(q->line.method, "GET") || !strcmp(q->line.method, "HEAD"))
			*ret = BUILTINS[i].answer(q);
		else if (!strcmp(q->line.method, "OPTIONS"))
			*ret = respond_options(q, get);
		else
			*ret = respond_not_allowed(q, get);
		return true;
	}
	return false;
}
