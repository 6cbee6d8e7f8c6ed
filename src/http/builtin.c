#include <string.h>

#include "http_impl.h"
#include "provost/pool.h"

/* What the caller may call; nobody may call what is public. */
static enum MHD_Result index_answer(struct request *q)
{
	const struct http_index *x = (struct http_index *)snapshot_use(http_of(q)->index);
	size_t len;
	caller_look(q);
	char *text = index_render(x, q->identity, &len);
	if (!text)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	return respond_json(q, 200, text, len, free, text);
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

struct builtin {
	const char *path;
	bool is_public; /* else for administrators */
	enum MHD_Result (*get)(struct request *q);
	enum MHD_Result (*delete)(struct request *q); /* or NULL */
};

static const struct builtin BUILTINS[] = {
    {"/", true, index_answer, NULL},
    {"/livez", true, livez, NULL},
    {"/readyz", true, readyz, NULL},
    {"/api/admin/cache", false, report_cache, report_invalidate},
};

static char admin[] = "admin", *admins[] = {admin};
static const struct strlist ADMINISTRATORS = {.item = admins, .count = 1};

static enum MHD_Result call(struct request *q, const struct builtin *b)
{
	const char *method = q->line.method;
	unsigned methods = 1u << METHOD_GET | (b->delete ? 1u << METHOD_DELETE : 0);
	enum MHD_Result r;
	if (!strcmp(method, "GET") || !strcmp(method, "HEAD"))
		return b->get(q);
	if (!strcmp(method, "DELETE") && b->delete)
		return caller_require_intent(q, &r) == 0 ? b->delete (q) : r;
	if (!strcmp(method, "OPTIONS"))
		return respond_options(q, methods);
	return respond_not_allowed(q, methods);
}

bool builtin_answer(struct request *q, enum MHD_Result *ret)
{
	const struct slice path = q->parsed.path;
	for (size_t i = 0; i < ELEMENTSOF(BUILTINS); i++) {
		if (strlen(BUILTINS[i].path) != path.n || memcmp(BUILTINS[i].path, path.p, path.n))
			continue;
		if (BUILTINS[i].is_public || caller_require(q, &ADMINISTRATORS, ret) == 0)
			*ret = call(q, &BUILTINS[i]);
		return true;
	}
	return false;
}
