#include <string.h>

#include "http_impl.h"
#include "provost/buf.h"

/* Before every member and item but the first. */
static void comma(struct buf *b)
{
	char last = b->len ? b->data[b->len - 1] : '{';
	if (last != '{' && last != '[')
		buf_addc(b, ',');
}

static void text(struct buf *b, const char *s)
{
	comma(b);
	buf_add_json_string(b, s, strlen(s));
}

static void key(struct buf *b, const char *name)
{
	text(b, name);
	buf_addc(b, ':');
}

static void put(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	key(b, name);
	buf_add_json_string(b, value, strlen(value));
}

static void open_list(struct buf *b, const char *name)
{
	key(b, name);
	buf_addc(b, '[');
}

static void add_parameter(struct buf *b, const struct param *p)
{
	char type[32];
	snprintf(type, sizeof type, "%s%s", param_type_name(p->type), p->array ? "[]" : "");
	comma(b);
	buf_addc(b, '{');
	put(b, "name", p->name);
	put(b, "in", param_in_name(p->in));
	put(b, "type", type);
	key(b, "required");
	buf_adds(b, p->required ? "true" : "false");
	put(b, "default", p->default_value);
	put(b, "min", p->min.set ? p->min.text : NULL);
	put(b, "max", p->max.set ? p->max.text : NULL);
	if (p->enumeration.count) {
		open_list(b, "enum");
		for (size_t i = 0; i < p->enumeration.count; i++)
			text(b, p->enumeration.item[i]);
		buf_addc(b, ']');
	}
	buf_addc(b, '}');
}

static void add_endpoint(struct buf *b, const struct endpoint *e)
{
	comma(b);
	buf_addc(b, '{');
	put(b, "name", e->name);
	put(b, "method", method_name(e->method));
	put(b, "path", e->route);
	put(b, "description", e->description);
	open_list(b, "roles");
	for (size_t i = 0; i < e->roles.count; i++)
		text(b, e->roles.item[i]);
	if (e->is_public)
		text(b, "public");
	buf_addc(b, ']');
	open_list(b, "parameters");
	for (size_t i = 0; i < e->params; i++)
		add_parameter(b, &e->param[i]);
	buf_adds(b, "]}");
}

static void index_free(struct snapshot_object *o)
{
	struct http_index *x = (struct http_index *)o;
	free(x->text);
	free(x);
}

struct http_index *index_new(const struct catalog *catalog)
{
	struct http_index *x = xcalloc(1, sizeof *x);
	struct buf b = {0};
	buf_addc(&b, '{');
	put(&b, "name", "provost");
	put(&b, "version", PROVOST_VERSION);
	open_list(&b, "endpoints");
	for (size_t i = 0; catalog && i < catalog->endpoints; i++)
		add_endpoint(&b, catalog->endpoint[i]);
	buf_adds(&b, "]}");
	x->object.free = index_free;
	x->text = buf_take(&b, &x->len);
	ALWAYS(x->text); /* as all memory that loading cannot do without */
	return x;
}
