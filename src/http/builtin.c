#include <string.h>

#include "http_impl.h"
#include "provost/pool.h"

static void index_done(void *index)
{
	snapshot_unref(index);
}

/* What may be called. */
static enum MHD_Result index_answer(struct request *q)
{
	struct http_index *x = (struct http_index *)snapshot_use(http_of(q)->index);
	snapshot_ref(&x->object);
	return respond_json(q, 200, x->text, x->len, index_done, &x->object);
}

/* ---- health -------------------------------------------------------------------------- */

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

/* ---- which --------------------------------------------------------------------------- */

static const struct {
	const char *path;
	enum MHD_Result (*get)(struct request *q);
	enum MHD_Result (*delete)(struct request *q); /* or NULL */
} BUILTINS[] = {
    {"/", index_answer, NULL},
    {"/livez", livez, NULL},
    {"/readyz", readyz, NULL},
    {"/api/admin/cache", report_cache, report_invalidate},
};

bool builtin_answer(struct request *q, enum MHD_Result *ret)
{
	const struct slice path = q->parsed.path;
	const char *method = q->line.method;
	for (size_t i = 0; i < ELEMENTSOF(BUILTINS); i++) {
		if (strlen(BUILTINS[i].path) != path.n || memcmp(BUILTINS[i].path, path.p, path.n))
			continue;
		unsigned methods =
		    1u << METHOD_GET | (BUILTINS[i].delete ? 1u << METHOD_DELETE : 0);
		if (!strcmp(method, "GET") || !strcmp(method, "HEAD"))
			*ret = BUILTINS[i].get(q);
		else if (!strcmp(method, "DELETE") && BUILTINS[i].delete)
			*ret = BUILTINS[i].delete(q);
		else if (!strcmp(method, "OPTIONS"))
			*ret = respond_options(q, methods);
		else
			*ret = respond_not_allowed(q, methods);
		return true;
	}
	return false;
}
