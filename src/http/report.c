#include <json-c/json.h>
#include <string.h>

#include "http_impl.h"
#include "provost/hub.h"
#include "provost/key.h"
#include "provost/listener.h"
#include "provost/pool.h"
#include "provost/tags.h"

/* ---- GET ----------------------------------------------------------------------------- */

/* A report that lacks what there was no memory for would be wrong: then there is none. */
struct report {
	struct json_object *root;
	bool failed;
};

static struct json_object *object(struct report *r)
{
	struct json_object *o = json_object_new_object();
	r->failed |= !o;
	return o;
}

/* Takes the value over. */
static void put(struct report *r, struct json_object *o, const char *key, struct json_object *value)
{
	if (!o || !value || json_object_object_add(o, key, value) < 0) {
		json_object_put(value);
		r->failed = true;
	}
}

static void put_number(struct report *r, struct json_object *o, const char *key, uint64_t n)
{
	put(r, o, key, json_object_new_uint64(n));
}

static void put_text(struct report *r, struct json_object *o, const char *key, const char *text)
{
	put(r, o, key, json_object_new_string(text));
}

/* Two decimals, spelled out: a double would be printed with all that it has. */
static void put_decimal(struct report *r, struct json_object *o, const char *key, double n)
{
	char text[32];
	snprintf(text, sizeof text, "%.2f", n);
	put(r, o, key, json_object_new_double_s(n, text));
}

static void put_ms(struct report *r, struct json_object *o, const char *key, uint64_t us)
{
	put_decimal(r, o, key, (double)us / 1000);
}

static struct json_object *put_object(struct report *r, struct json_object *o, const char *key)
{
	struct json_object *x = object(r);
	put(r, o, key, x);
	return r->failed ? NULL : x;
}

static struct json_object *put_array(struct report *r, struct json_object *o, const char *key)
{
	struct json_object *x = json_object_new_array();
	put(r, o, key, x);
	return r->failed ? NULL : x;
}

static struct json_object *append_object(struct report *r, struct json_object *array)
{
	struct json_object *x = object(r);
	if (!array || !x || json_object_array_add(array, x) < 0) {
		json_object_put(x);
		r->failed = true;
		return NULL;
	}
	return x;
}

static void put_counts(struct report *r, const struct cache_stats *c, const struct engine_stats *e)
{
	uint64_t lookups = c->hits + c->misses;
	double rate = lookups ? 100.0 * (double)c->hits / (double)lookups : 0;
	struct json_object *o = r->root;
	put_number(r, o, "hits", c->hits);
	put_number(r, o, "misses", c->misses);
	put_number(r, o, "collapsed", e->collapsed);
	put_decimal(r, o, "hitRate", rate);
	put_number(r, o, "entries", c->entries);
	put_number(r, o, "absences", c->absences);
	put_number(r, o, "bytes", c->bytes);
	put_number(r, o, "stores", c->stores);
	put_number(r, o, "evictions", c->evictions);
	put_number(r, o, "expirations", c->expirations);
	put_number(r, o, "invalidations", c->invalidations);
	put_number(r, o, "tooLarge", c->refused);
	put_number(r, o, "outdated", c->outdated);
	put_number(r, o, "statements", e->statements);
	put_number(r, o, "refreshes", e->refreshes);
	put_number(r, o, "encodings", e->encodings);
	struct json_object *stale = put_object(r, o, "stale");
	put_number(r, stale, "swr", c->swr);
	put_number(r, stale, "maxStale", c->max_stale);
	put_number(r, stale, "staleIfError", c->stale_if_error);
}

/* An entry's parameters, if the endpoint is still the one that made it. */
static void put_values(struct report *r, struct json_object *o, const struct catalog *catalog,
                       const struct cache_top *t)
{
	const char *value[ENDPOINT_PARAMS_MAX];
	const struct endpoint *e = catalog ? catalog_find(catalog, key_endpoint(t->key)) : NULL;
	if (!e || t->key_len < e->key_prefix_len ||
	    memcmp(t->key, e->key_prefix, e->key_prefix_len))
		return;
	struct json_object *values = put_object(r, o, "values");
	key_values(e, t->key, t->key_len, value, NULL, NULL);
	for (size_t i = 0; i < e->params; i++)
		if (value[i])
			put_text(r, values, e->param[i].name, value[i]);
}

static void put_top(struct report *r, const struct catalog *catalog, const struct cache_stats *c)
{
	struct json_object *top = put_array(r, r->root, "mostAccessed");
	for (size_t i = 0; i < CACHE_TOP && c->top[i].key; i++) {
		struct json_object *o = append_object(r, top);
		put_text(r, o, "endpoint", key_endpoint(c->top[i].key));
		put_values(r, o, catalog, &c->top[i]);
		put_number(r, o, "hits", c->top[i].hits);
	}
}

static void put_freshness(struct report *r, struct json_object *o, const struct freshness *f)
{
	put_number(r, o, "ttl", (uint64_t)f->ttl_ms);
	put_number(r, o, "swr", (uint64_t)f->swr_ms);
	put_number(r, o, "maxStale", (uint64_t)f->max_stale_ms);
	put_number(r, o, "staleIfError", (uint64_t)f->stale_if_error_ms);
}

static void put_settings(struct report *r, const struct http_live *live,
                         const struct cache_stats *c, const struct engine_stats *e,
                         const struct pool_stats *p)
{
	struct json_object *o = put_object(r, r->root, "settings");
	put_number(r, o, "capacity", (uint64_t)c->capacity);
	put_number(r, o, "shards", c->shards);
	put_number(r, o, "maxEntry", (uint64_t)c->max_entry);
	put_number(r, o, "negativeTtl", (uint64_t)c->negative_ttl_ms);
	put_text(r, o, "policy", "lru");
	struct json_object *codings = put_array(r, o, "compression");
	for (unsigned i = 0; i < CODING_COUNT; i++)
		if (live->codings & 1u << i)
			r->failed |=
			    !codings || json_object_array_add(
			                    codings, json_object_new_string(coding_name(i))) < 0;
	put_freshness(r, o, &live->freshness);
	struct json_object *workers = put_object(r, o, "workers");
	put_number(r, workers, "threads", e->threads);
	put_number(r, workers, "queue", e->queue);
	struct json_object *database = put_object(r, o, "database");
	put_number(r, database, "poolMin", p->min);
	put_number(r, database, "poolMax", p->max);
}

static void put_stream(struct report *r, const struct listener_stats *s)
{
	struct json_object *o = put_object(r, r->root, "stream");
	put_text(r, o, "state", listener_state_name(s->state));
	put_ms(r, o, "lagMs", s->lag_us);
	put_ms(r, o, "lagMaxMs", s->lag_max_us);
	put_number(r, o, "changes", s->changes);
	put_number(r, o, "syncs", s->syncs);
	put_number(r, o, "lateSyncs", s->late_syncs);
	put_number(r, o, "epochs", s->epochs);
	put_number(r, o, "unreadable", s->unreadable);
	put_number(r, o, "gaps", s->gaps);
}

static void put_endpoints(struct report *r, const struct catalog *catalog)
{
	struct json_object *all = put_array(r, r->root, "endpoints");
	for (size_t i = 0; catalog && i < catalog->endpoints; i++) {
		const struct endpoint *e = catalog->endpoint[i];
		if (e->method != METHOD_GET)
			continue;
		struct json_object *o = append_object(r, all);
		put_text(r, o, "name", e->name);
		put_freshness(r, o, &e->freshness);
		put(r, o, "cached", json_object_new_boolean(endpoint_is_cached(e)));
		if (e->opaque)
			put_text(r, o, "reason", e->opaque);
		else if (!endpoint_is_collapsed(e))
			put_text(r, o, "reason",
			         "changes of one of its tables are not told, or what it reads "
			         "through has been replaced: the log says of which, and why");
	}
}

/* Those that would be cached if changes of their tables were told. */
static void put_uncovered(struct report *r, const struct catalog *catalog)
{
	struct json_object *all = put_array(r, r->root, "uncovered");
	for (size_t i = 0; catalog && i < catalog->endpoints; i++) {
		const struct endpoint *e = catalog->endpoint[i];
		if (e->method == METHOD_GET && !e->opaque && !endpoint_is_collapsed(e))
			r->failed |=
			    !all || json_object_array_add(all, json_object_new_string(e->name)) < 0;
	}
}

static void render(struct request *q, struct report *r)
{
	struct http *h = http_of(q);
	const struct http_live *live = http_live(h);
	const struct catalog *catalog = (struct catalog *)snapshot_use(h->catalog);
	struct cache_stats c;
	struct engine_stats e;
	struct pool_stats p;
	struct listener_stats stream;
	cache_stats(h->cache, &c);
	engine_stats(h->engine, &e);
	pool_stats(h->pool, &p);
	listener_stats(h->listener, &stream);
	r->root = object(r);
	put_counts(r, &c, &e);
	put_stream(r, &stream);
	put_top(r, catalog, &c);
	put_settings(r, live, &c, &e, &p);
	put_endpoints(r, catalog);
	put_uncovered(r, catalog);
	cache_stats_done(&c);
}

static void report_done(void *root)
{
	json_object_put(root);
}

enum MHD_Result report_cache(struct request *q)
{
	struct report r = {0};
	size_t len;
	render(q, &r);
	const int form = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
	const char *text = r.failed ? NULL : json_object_to_json_string_length(r.root, form, &len);
	if (!text) {
		json_object_put(r.root);
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	}
	return respond_json(q, 200, text, len, report_done, r.root);
}

/* ---- DELETE -------------------------------------------------------------------------- */

struct raise {
	struct http *http;
	const struct catalog *catalog;
	unsigned named;  /* pairs that say what */
	const char *why; /* a refusal, or NULL */
	unsigned status;
};

static bool is(struct slice s, const char *name)
{
	return s.n == strlen(name) && !memcmp(s.p, name, s.n);
}

static void refuse(struct raise *x, unsigned status, const char *why)
{
	x->status = status;
	x->why = why;
}

/* Twice: first to check all, then to do all. */
static void take_pair(struct raise *x, struct slice name, struct slice raw, bool act)
{
	_cleanup_buf_ struct buf value = {.max = 4096};
	bool tag = is(name, "tag"), endpoint = is(name, "endpoint"), all = is(name, "all");
	if (!tag && !endpoint && !all)
		return;
	x->named++;
	if (all && raw.n && !is(raw, "1") && !is(raw, "true") && !is(raw, "yes")) {
		refuse(x, 400, "?all has no value, or 1, true or yes.");
		return;
	}
	if (percent_decode(raw, true, &value) < 0 || (!all && value.len == 0)) {
		refuse(x, 400, "A tag or an endpoint is named by its value: ?tag=courses.");
		return;
	}
	buf_addc(&value, '\0');
	if (value.failed)
		refuse(x, 400, "The name is too long.");
	else if (endpoint && !(x->catalog && catalog_find(x->catalog, value.data)))
		refuse(x, 404, "There is no endpoint of that name; GET / lists them.");
	else if (act && all)
		generations_raise_epoch(x->http->generations);
	else if (act && tag)
		tags_raise(x->http->generations, value.data, value.len - 1);
	else if (act)
		tags_raise_endpoint(x->http->generations, value.data);
}

static void take_query(struct raise *x, struct slice query, bool act)
{
	struct slice name, value;
	while (!x->why && target_take_pair(&query, &name, &value))
		take_pair(x, name, value, act);
}

enum MHD_Result report_invalidate(struct request *q)
{
	static const char done[] = "{\"success\":true}";
	struct http *h = http_of(q);
	struct raise x = {.http = h, .catalog = (struct catalog *)snapshot_use(h->catalog)};
	take_query(&x, q->parsed.query, false);
	if (!x.why && x.named == 0)
		refuse(&x, 400, "Say what to invalidate: ?tag=NAME, ?endpoint=NAME or ?all.");
	if (x.why)
		return respond_problem(q, x.status, x.why);
	take_query(&x, q->parsed.query, true);
	hub_raised(h->hub);
	return respond_json(q, 200, done, sizeof done - 1, NULL, NULL);
}
