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
	                 engine_database_is_up(h->engine) ? "up" : "down");
	char *body = strdup(text);
	if (!body)
		return MHD_NO;
	return respond_json(q, phase == HTTP_READY ? 200 : 503, body, (size_t)n, free, body);
}

/* ---- which --------------------------------------------------------------------------- */

enum whom {
	FOR_ALL,
	FOR_KNOWN, /* whoever can be identified */
	FOR_ADMINISTRATORS,
};

struct builtin {
	const char *path;
	enum whom whom;
	size_t body_max; /* bytes that its POST takes */
	bool reads;      /* its POST changes nothing */
	enum MHD_Result (*get)(struct request *q);
	enum MHD_Result (*delete)(struct request *q); /* or NULL, as the others */
	enum MHD_Result (*post)(struct request *q);
};

/* What a page of another site has a batch read it cannot see, so nothing is asked but who calls. */
static const struct builtin BUILTINS[] = {
    {"/", FOR_ALL, .get = index_answer},
    {"/livez", FOR_ALL, .get = livez},
    {"/readyz", FOR_ALL, .get = readyz},
    {"/ws", FOR_ALL, .get = upgrade_ws},
    {"/echo", FOR_ALL, .get = upgrade_echo}, /* with --test-echo only */
    {"/api/admin/websocket", FOR_ADMINISTRATORS, .get = sockets_report},
    {"/api/batch", FOR_KNOWN, .body_max = 64 << 10, .reads = true, .post = batch_begin},
    {"/api/admin/cache", FOR_ADMINISTRATORS, .get = report_cache, .delete = report_invalidate},
    {"/api/admin/revocations", FOR_ADMINISTRATORS, .body_max = 4096, .delete = revoke_remove,
     .post = revoke_add},
    {"/client", FOR_ALL, .get = assets_redirect},
    {ASSETS_PREFIX, FOR_ALL, .get = assets_redirect},
};
static const struct builtin FILE_OF_CLIENT = {ASSETS_PREFIX, FOR_ALL, .get = assets_answer};

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
	if (b == &FILE_OF_CLIENT && !assets_has(q))
		return respond_problem(q, 404, "There is no such file.");
	if (b->get && (!strcmp(method, "GET") || !strcmp(method, "HEAD")))
		return b->get(q);
	if (b->delete &&!strcmp(method, "DELETE"))
		return change(q, b->delete);
	if (b->post && !strcmp(method, "POST"))
		return b->reads ? b->post(q) : change(q, b->post);
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
	size_t n = strlen(ASSETS_PREFIX);
	return path.n > n && !memcmp(path.p, ASSETS_PREFIX, n) ? &FILE_OF_CLIENT : NULL;
}

static const struct strlist *roles_of(const struct builtin *b)
{
	return b->whom == FOR_ADMINISTRATORS ? &ADMINISTRATORS : NULL;
}

size_t builtin_body_max(struct request *q)
{
	const struct builtin *b = strcmp(q->line.method, "POST") ? NULL : find(q);
	return b && b->post && caller_may(q, roles_of(b)) ? b->body_max : 0;
}

bool builtin_answer(struct request *q, enum MHD_Result *ret)
{
	const struct builtin *b = find(q);
	if (b && (b->whom == FOR_ALL || caller_require(q, roles_of(b), ret) == 0))
		*ret = call(q, b);
	return b != NULL;
}
