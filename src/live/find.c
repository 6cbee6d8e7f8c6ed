#include <errno.h>
#include <string.h>

#include "live_impl.h"
#include "provost/catalog.h"
#include "provost/key.h"
#include "provost/target.h"

static int refuse(struct live_problem *p, unsigned status, const char *detail)
{
	p->status = status;
	snprintf(p->detail, sizeof p->detail, "%s", detail);
	return -EINVAL;
}

/* ---- from a path to an endpoint ------------------------------------------------------ */

static int parse(const char *path, size_t n, struct target *ret, struct live_problem *p)
{
	if (n > LIVE_PATH_MAX)
		return refuse(p, 414, "The path is too long.");
	if (target_parse(path, n, ret) < 0 || path[0] != '/')
		return refuse(p, 400,
		              "The path must be that of a GET, such as /api/admin/courses?page=2.");
	return 0;
}

static int route(const struct catalog *c, const struct target *t, const struct identity *i,
                 struct route_match *m, struct live_problem *p)
{
	if (catalog_is_reserved(t->path))
		return refuse(p, 404,
		              "Only endpoints can be live, and this path is Provost's own.");
	catalog_route(c, METHOD_GET, t->path, m);
	if (!m->methods)
		return refuse(p, 404, "There is nothing at this path.");
	if (!m->endpoint)
		return refuse(p, 405, "The path does not answer to GET.");
	if (!m->endpoint->is_public && !identity_allows(i, &m->endpoint->roles))
		return refuse(p, 403, "This is not for your role.");
	return 0;
}

/* What is asked for anew each time has no time for which it may be shown. */
static int64_t ttl_ms(const struct endpoint *e)
{
	return e->cache.off ? 0 : MAX(e->freshness.ttl_ms, 0);
}

/* Whether there is something that tells when its answer is another. The reasons are the operator's
 * to look up: they name what callers need not know of. */
static int check_endpoint(const struct endpoint *e, struct live_problem *p)
{
	if (e->returns == RETURNS_NONE)
		return refuse(p, 422, "The endpoint returns nothing that could be shown.");
	if (e->opaque)
		return refuse(p, 422,
		              "The endpoint cannot be live, because it is not known which tables "
		              "its answer is made from; `provost check` says why.");
	if (!endpoint_is_collapsed(e))
		return refuse(p, 422,
		              "The endpoint cannot be live, because not all of its tables tell "
		              "of changes; `provost triggers install` makes them.");
	if (ttl_ms(e) == 0 && e->dependencies == 0 && e->cache.tags.count == 0)
		return refuse(p, 422,
		              "The endpoint cannot be live, because nothing tells when its "
		              "answer changes: it has no table, no tag and no ttl.");
	return 0;
}

/* ---- parameters ---------------------------------------------------------------------- */

/* Those that there is room for, each whole. */
static int refuse_values(struct live_problem *p, const struct values *v)
{
	static const char more[] = "; and more";
	size_t at = 0, room = sizeof p->detail - sizeof more;
	p->status = 400;
	for (size_t i = 0; i < v->errors; i++) {
		const struct value_error *e = &v->error[i];
		const char *name = *e->name ? e->name : "the query";
		size_t n = strlen(name) + strlen(e->reason) + 4;
		if (at + n > room) {
			strcpy(p->detail + at, more);
			break;
		}
		at += (size_t)sprintf(p->detail + at, "%s%s: %s", i ? "; " : "", name, e->reason);
	}
	return -EINVAL;
}

static int build_key(const struct route_match *m, struct slice query, const struct identity *i,
                     struct buf *key, struct live_problem *p)
{
	const struct key_caller caller = {i->subject, i->roles_text, i->claims};
	struct values v = {0};
	int r = values_read(&v, m->endpoint, m->path, m->paths, query);
	if (r == 0)
		r = key_build(m->endpoint, &v, &caller, key);
	if (r == -EINVAL)
		r = refuse_values(p, &v);
	else if (r < 0)
		r = refuse(p, 503, "The server is out of memory. Try again.");
	values_done(&v);
	return r;
}

/* ---- the path ------------------------------------------------------------------------ */

int live_find(struct live *l, const char *path, size_t n, const struct identity *i,
              struct live_path *ret, struct live_problem *ret_problem)
{
	struct catalog *c = (struct catalog *)snapshot_use(l->catalog);
	_cleanup_buf_ struct buf key = {0};
	struct route_match m;
	struct target t;
	if (!c)
		return refuse(ret_problem, 503, "The server is starting. Try again.");
	if (parse(path, n, &t, ret_problem) < 0 || route(c, &t, i, &m, ret_problem) < 0 ||
	    check_endpoint(m.endpoint, ret_problem) < 0 ||
	    build_key(&m, t.query, i, &key, ret_problem) < 0)
		return -EINVAL;
	snapshot_ref(&c->object);
	*ret = (struct live_path){.catalog = c, .endpoint = m.endpoint, .key = key};
	key = (struct buf){0};
	return 0;
}

void live_path_done(struct live_path *p)
{
	if (p->catalog)
		snapshot_unref(&p->catalog->object);
	buf_done(&p->key);
	*p = (struct live_path){0};
}

/* The path's reference keeps another catalogue from having the same address. */
bool live_path_is_current(struct live *l, const struct live_path *p)
{
	return snapshot_use(l->catalog) == &p->catalog->object &&
	       endpoint_is_collapsed(p->endpoint);
}

int64_t live_path_ttl_ms(const struct live_path *p)
{
	return p->endpoint->dependencies > 0 ? 0 : ttl_ms(p->endpoint);
}
