#include "load.h"

#include "provost/auth.h"
#include "provost/catalog.h"
#include "provost/config.h"

/* ---- endpoints ----------------------------------------------------------------------- */

/* What holds is said by the operator for this endpoint, else by its author, else for all. */
static int64_t first_said(int64_t operator_says, int64_t author_says, int64_t otherwise)
{
	if (operator_says >= 0)
		return operator_says;
	return author_says >= 0 ? author_says : otherwise;
}

static void set_freshness(struct endpoint *e, const struct freshness *said,
                          const struct freshness *defaults)
{
	const struct cache_policy *p = &e->cache;
	e->freshness = (struct freshness){
	    .ttl_ms = first_said(said->ttl_ms, p->ttl_ms, defaults->ttl_ms),
	    .swr_ms = first_said(said->swr_ms, p->swr_ms, defaults->swr_ms),
	    .max_stale_ms = first_said(said->max_stale_ms, p->max_stale_ms, defaults->max_stale_ms),
	    .stale_if_error_ms = first_said(said->stale_if_error_ms, p->stale_if_error_ms,
	                                    defaults->stale_if_error_ms),
	};
}

static void set_defaults(const struct config *c, struct catalog *catalog)
{
	static const struct freshness unset = {-1, -1, -1, -1};
	for (size_t i = 0; i < catalog->endpoints; i++)
		set_freshness(catalog->endpoint[i], &unset, &c->freshness);
}

static bool says_nothing(const struct freshness *f)
{
	return f->ttl_ms < 0 && f->swr_ms < 0 && f->max_stale_ms < 0 && f->stale_if_error_ms < 0;
}

static void apply_override(const struct config *c, const struct endpoint_override *o,
                           struct endpoint *e, struct errors *errs)
{
	if (!says_nothing(&o->freshness) && (e->method != METHOD_GET || e->cache.off))
		errors_add(errs, c->file, o->line,
		           "[endpoint %s] is never cached (%s): take ttl, swr, max_stale and "
		           "stale_if_error out",
		           o->name, e->cache.off ? "@cache off" : method_name(e->method));
	if (o->timeout_ms >= 0)
		e->timeout_ms = o->timeout_ms;
	set_freshness(e, &o->freshness, &c->freshness);
}

static void apply_overrides(const struct config *c, struct catalog *catalog, struct errors *errs)
{
	set_defaults(c, catalog);
	for (size_t i = 0; i < c->overrides; i++) {
		const struct endpoint_override *o = &c->override[i];
		struct endpoint *e = catalog_find(catalog, o->name);
		if (!e)
			errors_add(errs, c->file, o->line,
			           "[endpoint %s]: there is no such endpoint under %s", o->name,
			           c->endpoints_dir);
		else
			apply_override(c, o, e, errs);
	}
}

struct catalog *load_good_catalog(const struct config *c, struct errors *errs)
{
	struct catalog *catalog = catalog_load_good(c->endpoints_dir, errs);
	/* Only then: a section's endpoint may be there and broken. */
	if (errors_count(errs) == 0)
		apply_overrides(c, catalog, errs);
	return catalog;
}

struct catalog *load_catalog(const struct config *c, struct errors *errs)
{
	struct catalog *catalog = catalog_load(c->endpoints_dir, errs);
	if (catalog)
		apply_overrides(c, catalog, errs);
	if (errors_count(errs) > 0)
		catalog_free(&catalog);
	return catalog;
}

/* ---- callers ------------------------------------------------------------------------- */

struct auth *load_auth(const struct config *c, struct errors *errs, struct errors *notes)
{
	struct auth *a = auth_new();

	if (auth_configure(a, &c->auth, errs, notes) < 0)
		auth_free(&a);
	return a;
}
