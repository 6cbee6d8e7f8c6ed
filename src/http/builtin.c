#include <string.h>

#include "http_impl.h"
#include "provost/pool.h"

enum { BODY_MAX = 4096 }; /* bytes that a built-in path takes */

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
	                 http_database_is_up(h) ? "up" : "down");
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
	enum MHD_Result (*delete)(struct request *q); /* or NULL, as the others */
	enum MHD_Result (*post)(struct request *q);
};

static const struct builtin BUILTINS[] = {
    {"/", true, index_answer, NULL, NULL},
    {"/livez", true, livez, NULL, NULL},
    {"/readyz", true, readyz, NULL, NULL},
    {"/ws", true, upgrade_ws, NULL, NULL},
    {"/echo", true, upgrade_echo, NULL, NULL}, /* with --test-echo only */
    {"/api/admin/websocket", false, sockets_report, NULL, NULL},
    {"/api/admin/cache", false, report_cache, report_invalidate, NULL},
    {"/api/admin/revocations", false, NULL, revoke_remove, revoke_add},
};

static char admin[] = "admin", *admins[] = {admin};
static const struct strlist ADMINISTRATORS = {.item = admins, .count = 1};

static enum MHD_Result change(struct request *q, enum MHD_Result (*f)(struct request *q))
{
	enum MHD_Result r;
	return caller_require_intent(q, &r) == 0 ? f(q) : r;
}

static enum MHD_Result call(struct request *q, const struct builtin *b)
{
	const char *method = q->line.method;
	unsigned methods = (b->get ? 1u << METHOD_GET : 0) | (b->post ? 1u << METHOD_POST : 0) |
	                   (b->delete ? 1u << METHOD_DELETE : 0);
	if (b->get && (!strcmp(method, "GET") || !strcmp(method, "HEAD")))
		return b->get(q);
	if (b->delete &&!strcmp(method, "DELETE"))
		return change(q, b->delete);
	if (b->post && !strcmp(method, "POST"))
		return change(q, b->post);
	if (!strcmp(method, "OPTIONS"))
		return respond_options(q, methods);
	return respond_not_allowed(q, methods);
}

static const struct builtin *find(struct request *q)
{
	const struct slice path = q->parsed.path;
	for (size_t i = 0; i < ELEMENTSOF(BUILTINS); i++) {
		const struct builtin *b = &BUILTINS[i];
		if (strlen(b->path) == path.n && !memcmp(b->path, path.p, path.n))
			return b->get != upgrade_echo || http_of(q)->test_echo ? b : NULL;
	}
	return NULL;
}

size_t builtin_body_max(struct request *q)
{
	const struct builtin *b = strcmp(q->line.method, "POST") ? NULL : find(q);
	return b && b->post && caller_may(q, &ADMINISTRATORS) ? BODY_MAX : 0;
}

bool builtin_answer(struct request *q, enum MHD_Result *ret)
{
	const struct builtin *b = find(q);
	if (b && (b->is_public || caller_require(q, &ADMINISTRATORS, ret) == 0))
		*ret = call(q, b);
	return b != NULL;
}
