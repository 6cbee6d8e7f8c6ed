#include <errno.h>
#include <string.h>

#include "http_impl.h"
#include "provost/key.h"
#include "provost/log.h"

/* ---- who may ------------------------------------------------------------------------- */

/* What is not public is for the identified: without a valid identity a path that exists and one
 * that does not are answered alike. A public endpoint that depends on who is calling looks, and
 * takes who cannot be identified for nobody. */
static bool may_call(struct request *q, const struct endpoint *e, enum MHD_Result *ret)
{
	if (!e || !e->is_public)
		return caller_require(q, e ? &e->roles : NULL, ret) == 0;
	if (endpoint_varies(e))
		caller_look(q);
	return true;
}

/* ---- an endpoint's answer ------------------------------------------------------------ */

static int build_key(struct request *q)
{
	struct key_caller caller = caller_key(q);
	return key_build(q->endpoint, &q->values, &caller, &q->key);
}

static bool requires_body(const struct endpoint *e)
{
	for (size_t i = 0; i < e->params; i++)
		if (e->param[i].in == IN_BODY && e->param[i].required)
			return true;
	return false;
}

/* Where nothing is required, nothing is as good as an empty object. */
static int read_body(struct request *q)
{
	struct slice body = {"{}", 2};
	if (q->body || requires_body(q->endpoint))
		body = (struct slice){q->content.len ? q->content.data : "", q->content.len};
	return values_read_body(&q->values, q->endpoint, body);
}

static int read_values(struct request *q, const struct route_match *m, struct slice query)
{
	int r = values_read(&q->values, m->endpoint, m->path, m->paths, query);
	if ((r < 0 && r != -EINVAL) || !endpoint_has_body(m->endpoint))
		return r;
	return read_body(q);
}

/* All that the job needs is in the key. */
static void forget_values(struct request *q)
{
	body_forget(q);
	values_reset(&q->values);
}

static enum MHD_Result call_endpoint(struct request *q, struct catalog *catalog,
                                     const struct route_match *m)
{
	const char *why;
	unsigned status = endpoint_has_body(m->endpoint) ? body_refusal(q, &why) : 0;
	q->endpoint = m->endpoint;
	if (status)
		return respond_problem(q, status, why);
	int r = read_values(q, m, q->parsed.query);
	if (r == -EINVAL)
		return respond_bad_values(q);
	if (r == 0)
		r = build_key(q);
	if (r < 0)
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	const struct ask a = {
	    .catalog = catalog,
	    .endpoint = m->endpoint,
	    .key = cache_key(http_of(q)->cache, q->key.data, q->key.len),
	    .request_id = q->id,
	};
	if (m->endpoint->method == METHOD_GET)
		return request_read(q, &a);
	forget_values(q);
	return request_write(q, &a);
}

/* ---- routing ------------------------------------------------------------------------- */

/* The one that the body was kept for, else the current one. */
static struct catalog *catalog_of(struct request *q)
{
	return q->catalog ? q->catalog : (struct catalog *)snapshot_use(http_of(q)->catalog);
}

/* HEAD is GET, and so is what is not known, so that it meets the roles of the path. Whether the
 * method is one of an endpoint's. */
static bool find(struct request *q, const struct catalog *catalog, struct route_match *m)
{
	const char *name = q->line.method;
	int method = method_parse(name, strlen(name));
	catalog_route(catalog, method >= 0 ? (enum method)method : METHOD_GET, q->parsed.path, m);
	return m->endpoint && (method >= 0 || !strcmp(name, "HEAD"));
}

size_t route_body_max(struct request *q)
{
	struct catalog *catalog = catalog_of(q);
	struct route_match m;
	if (!catalog || q->parsed.asterisk || !find(q, catalog, &m) ||
	    !endpoint_has_body(m.endpoint))
		return 0;
	if (!m.endpoint->is_public && !caller_may(q, &m.endpoint->roles))
		return 0;
	request_keep_catalog(q, catalog);
	return http_live(http_of(q))->max_body;
}

enum MHD_Result route_answer(struct request *q)
{
	struct catalog *catalog = catalog_of(q);
	struct route_match m;
	enum MHD_Result r;
	if (!catalog)
		return respond_problem(q, 503, "The server is starting. Try again.");
	bool known = find(q, catalog, &m);
	if (!may_call(q, m.endpoint, &r))
		return r;
	if (!m.methods)
		return respond_problem(q, 404, "There is nothing at this path.");
	if (!strcmp(q->line.method, "OPTIONS"))
		return respond_options(q, m.methods);
	if (!known)
		return respond_not_allowed(q, m.methods);
	if (m.endpoint->method != METHOD_GET && caller_require_intent(q, &r) < 0)
		return r;
	if (log_access_enabled())
		request_keep_catalog(q, catalog); /* the line names the route */
	return call_endpoint(q, catalog, &m);
}
