#include "serve.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "callers.h"
#include "changes.h"
#include "covering.h"
#include "descriptors.h"
#include "janitor.h"
#include "load.h"
#include "pidfile.h"
#include "provost/auth.h"
#include "provost/catalog.h"
#include "provost/config.h"
#include "provost/courier.h"
#include "provost/engine.h"
#include "provost/http.h"
#include "provost/hub.h"
#include "provost/live.h"
#include "provost/log.h"
#include "provost/pool.h"
#include "provost/snapshot.h"
#include "signals.h"

extern char **environ;

enum {
	LOOK_MS = 10,                /* between looks at who is still to be answered */
	DESCRIBE_TIMEOUT_MS = 10000, /* for all endpoints */
	RETRY_MS = 500,              /* between looks for a database that was not there */
	STREAM_MS = 1000, /* that the first requests may wait for the stream, to be cached */
	QUIET_MS = 1000,  /* without a request, after which kept connections are closed */
	LAST_QUIET_MS = 50,
	LAST_BYTES_MS = 1000, /* for answers queued after the engine stopped */
	BYE_MS = 2000,        /* for WebSockets to answer that they are closed */
};

struct server {
	struct config *config; /* in force; this thread's own */
	struct snapshot *catalog;
	struct generations *generations;
	struct cache *cache;
	struct pool *pool;
	struct changes changes;
	struct engine *engine;
	struct callers callers;
	struct covering covering;
	struct live *live;
	struct http *http;
	struct hub *hub;
	struct courier *courier;
	bool test_echo;
	struct clients clients;
	struct signals signals;
	struct janitor janitor;
	bool put_off;        /* a reload that came while the server was starting */
	bool was_ready;      /* /readyz has said so */
	const char *pidfile; /* NULL: none */
	int pidfile_fd;
};

/* ---- the database -------------------------------------------------------------------- */

static int describe(struct server *s, const struct config *c, struct catalog *catalog,
                    struct errors *errs)
{
	return engine_describe(catalog, c->pool.url, c->pool.prepare, s->signals.stop_fd,
	                       clock_us() + DESCRIBE_TIMEOUT_MS * 1000u, errs);
}

/* Before the endpoints are served. */
static int cover(struct server *s, const struct config *c, struct catalog *catalog,
                 struct errors *errs)
{
	int r = covering_look(&s->covering, catalog, c);
	if (r == -ENOTCONN)
		errors_add(errs, NULL, 0,
		           "the database went away while its triggers were being checked");
	return r;
}

/* ---- the access log ------------------------------------------------------------------ */

static int open_access_log(const struct config *c, struct errors *errs)
{
	int r = log_access_open(c->http.access_log);
	if (r < 0)
		errors_add(errs, c->file, 0, "[http] access_log: %s cannot be opened: %s",
		           c->http.access_log, strerror(-r));
	return r;
}

/* So that a file that was rotated is let go. */
static void reopen_access_log(struct server *s)
{
	int r = log_access_open(s->config->http.access_log);
	if (r < 0)
		log_warn("the access log cannot be opened anew; the old file is kept",
		         LOGS("target", s->config->http.access_log), LOGS("reason", strerror(-r)));
}

/* ---- signals ------------------------------------------------------------------------- */

/* Whether a signal to stop came within `ms`. A wish to reload does not shorten the wait, and is put
 * off, but for the access log. */
static bool is_stopped_within(struct server *s, int64_t ms)
{
	uint64_t now, until = clock_ms() + (uint64_t)ms;
	do {
		now = clock_ms();
		int sig = signals_within(&s->signals, now < until ? (int64_t)(until - now) : 0);
		if (is_stop(sig))
			return true;
		if (sig == SIGHUP) {
			s->put_off = true;
			reopen_access_log(s);
		}
	} while (now < until);
	return false;
}

/* ---- reload -------------------------------------------------------------------------- */

static void count_auth(void *arg, const char *section, const char *key, const char *from,
                       const char *to, bool restart)
{
	size_t *auth_changes = arg;
	(void)key, (void)from, (void)to, (void)restart;
	*auth_changes += !strcmp(section, "auth");
}

static void log_change(void *arg, const char *section, const char *key, const char *from,
                       const char *to, bool restart)
{
	(void)arg, (void)restart;
	log_info("config: changed", LOGS("section", section), LOGS("key", key), LOGS("from", from),
	         LOGS("to", to));
}

static void warn_restart(void *arg, const char *section, const char *key, const char *from,
                         const char *to, bool restart)
{
	(void)arg;
	if (restart)
		log_warn("config: this change needs a restart", LOGS("section", section),
		         LOGS("key", key), LOGS("from", from), LOGS("to", to));
}

static void apply_log_level(const struct config *c)
{
	int level = log_level_parse(c->log.level);
	if (level >= 0)
		log_set_level((enum log_level)level);
}

/* What is served from now on. A session may hold its statements and those of the catalogue before.
 */
static void publish(struct server *s, struct catalog *catalog)
{
	pool_limit_prepared(s->pool, 2 * catalog->endpoints);
	http_publish(s->http, catalog);
}

/* Borrows from the configuration. */
static struct hub_options hub_options(const struct server *s, const struct config *c)
{
	struct hub_options o = c->hub;
	o.max_clients = s->clients.sockets;
	return o;
}

/* Borrows from the configuration. A connection of its own, as direct as the listener's. */
static struct courier_options courier_options(const struct config *c)
{
	struct courier_options o = c->courier;
	o.url = c->listener.url ? c->listener.url : c->pool.url;
	return o;
}

/* Borrows from the configuration. */
static struct http_options http_options(const struct config *c)
{
	struct http_options o = c->http;
	o.codings = (c->compression.gzip ? 1u << CODING_GZIP : 0) |
	            (c->compression.br ? 1u << CODING_BR : 0);
	o.freshness = c->freshness;
	return o;
}

static int check_auth(const struct config *config, struct errors *errs)
{
	struct auth *tried = load_auth(config, errs, NULL);
	int r = tried ? 0 : -EINVAL;

	auth_free(&tried);
	return r;
}

/* Reads files, which may be others than when they were checked: the last step that may fail.
 * Unchanged settings stay, or known tokens would have to be presented anew, and WebSockets to say
 * again who they are. */
static int apply_auth(struct server *s, const struct config *config, struct errors *errs)
{
	size_t changes = 0;
	(void)config_diff(s->config, config, count_auth, &changes);
	return changes > 0 ? callers_configure(&s->callers, config, errs) : 0;
}

/* Cannot fail any more. */
static void apply(struct server *s, struct config *config, struct catalog *catalog)
{
	size_t changes = config_diff(s->config, config, log_change, NULL);
	size_t endpoints = catalog->endpoints;
	struct http_options http = http_options(config);
	apply_log_level(config);
	pool_configure(s->pool, &config->pool);
	int r = engine_configure(s->engine, &config->engine);
	if (r < 0)
		log_error("not all workers could be started", LOGS("reason", strerror(-r)));
	cache_configure(s->cache, &config->cache);
	descriptors_refit(config, &s->clients);
	const struct hub_options hub = hub_options(s, config);
	hub_configure(s->hub, &hub);
	const struct courier_options courier = courier_options(config);
	courier_configure(s->courier, &courier);
	changes_configure(&s->changes, config);
	changes_warn(config);
	http_configure(s->http, &http);
	publish(s, catalog);
	config_free(&s->config);
	s->config = config;
	log_info("reload: applied", LOGU("keys_changed", changes), LOGU("endpoints", endpoints));
}

/* Validates everything, then applies everything, or changes nothing and says why. The access log is
 * opened anew in any case: whoever rotated it counts on that. */
static void reload(struct server *s)
{
	reopen_access_log(s);
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_catalog_ struct catalog *catalog = NULL;
	struct config *config = config_load(s->config->file, environ, errs);
	if (config) {
		(void)config_diff(s->config, config, warn_restart, NULL);
		if (config_keep_restart(config, s->config, errs) == 0)
			catalog = load_catalog(config, errs);
	}
	int r = config ? check_auth(config, errs) : -EINVAL;
	if (r == 0)
		r = catalog ? descriptors_check(config, &s->clients, errs) : -EINVAL;
	if (r == 0)
		r = describe(s, config, catalog, errs);
	if (r == 0)
		r = open_access_log(config, errs);
	bool moved = r == 0;
	/* Late: what it has seen of the new endpoints the next look builds on. */
	if (r == 0)
		r = cover(s, config, catalog, errs);
	if (r == 0)
		r = apply_auth(s, config, errs);
	if (r == 0) {
		apply(s, config, catalog);
		catalog = NULL;
		(void)callers_look(&s->callers);
		return;
	}
	if (moved)
		reopen_access_log(s);
	if (r == -ECANCELED) {
		log_warn("reload: given up, because of the stop");
	} else {
		log_errors("reload: refused", errs);
		log_error("reload: nothing was changed", LOGU("errors", errors_count(errs)));
	}
	config_free(&config);
}

/* ---- start --------------------------------------------------------------------------- */

static int take_pidfile(struct server *s)
{
	s->pidfile_fd = s->pidfile ? pidfile_lock(s->pidfile) : -1;
	if (!s->pidfile || s->pidfile_fd >= 0)
		return 0;
	if (s->pidfile_fd == -EWOULDBLOCK)
		log_error("the pid file belongs to a server that runs; stop it, or name another",
		          LOGS("file", s->pidfile));
	else
		log_error("cannot write the pid file", LOGS("file", s->pidfile),
		          LOGS("reason", strerror(-s->pidfile_fd)));
	return s->pidfile_fd;
}

static int start_threads(struct server *s, struct errors *errs)
{
	int r = pool_start(s->pool);
	if (r == 0)
		r = listener_start(s->changes.listener);
	if (r == 0)
		r = engine_start(s->engine);
	if (r == 0)
		r = hub_start(s->hub);
	if (r == 0)
		r = courier_start(s->courier);
	if (r == 0)
		r = janitor_start(&s->janitor, s->engine, s->cache, s->http);
	if (r < 0)
		errors_add(errs, NULL, 0, "cannot start a thread: %s", strerror(-r));
	if (r == 0)
		r = http_start(s->http, errs);
	return r;
}

static int start(struct server *s, struct errors *errs)
{
	int r = open_access_log(s->config, errs);
	if (r == 0)
		r = start_threads(s, errs);
	if (r == 0 && s->pidfile && (r = pidfile_write(s->pidfile_fd)) < 0)
		errors_add(errs, s->pidfile, 0, "cannot write the pid file: %s", strerror(-r));
	return r;
}

/* The endpoints were checked on a connection of their own, when the pool may still have been
 * waiting to try again: ready is who can answer. */
static void await_pool(struct server *s)
{
	uint64_t until_ms = clock_ms() + RETRY_MS;
	pool_hurry(s->pool);
	while (!pool_is_up(s->pool) && clock_ms() < until_ms)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Has PostgreSQL check the endpoints and say who may call, waiting for it as long as it takes. 0:
 * served from now on; 1: told to stop; -EINVAL: an endpoint is wrong. */
static int bring_up(struct server *s, struct catalog *catalog)
{
	for (bool told = false, described = false;;) {
		_cleanup_errors_ struct errors *errs = errors_new();
		int r = described ? 0 : describe(s, s->config, catalog, errs);
		described |= r == 0;
		if (described)
			r = cover(s, s->config, catalog, errs);
		/* Nobody is served before it is known who was revoked. Without the schema nobody
		 * was. */
		int known = r == 0 ? callers_look(&s->callers) : 0;
		if (r == 0 && (known >= 0 || known == -ENOENT)) {
			publish(s, catalog);
			await_pool(s);
			changes_await(&s->changes, STREAM_MS);
			http_set_phase(s->http, HTTP_READY);
			s->was_ready = true;
			return 0;
		}
		if (r == -EINVAL) {
			log_errors("an endpoint cannot be served", errs);
			catalog_free(&catalog);
			return r;
		}
		if (r == -ENOTCONN && !told)
			log_errors("waiting for the database", errs);
		told = true;
		if (is_stopped_within(s, RETRY_MS)) {
			catalog_free(&catalog);
			return 1;
		}
	}
}

/* ---- stop ---------------------------------------------------------------------------- */

/* Waits until no connection is open, or no request was for `quiet_ms`: less than that and one may
 * be on its way to its first line. False at the deadline or a second signal. */
static bool wait_for_requests(struct server *s, uint64_t until_ms, uint64_t quiet_ms)
{
	size_t requests, connections, before = 0;
	uint64_t now_ms, busy_ms = clock_ms();
	while ((now_ms = clock_ms()) < until_ms) {
		http_load(s->http, now_ms, &requests, &connections);
		/* Requests shorter than a turn show by the connections that they close. */
		if (requests || connections != before)
			busy_ms = now_ms;
		before = connections;
		if (!connections || now_ms - busy_ms >= quiet_ms)
			return true;
		if (is_stopped_within(s, LOOK_MS))
			break;
	}
	return false;
}

static void stop(struct server *s)
{
	const struct http_options *o = &s->config->http;
	log_info("stopping");
	http_set_phase(s->http, HTTP_DRAINING);
	/* Whoever was never told that it is ready need not learn that it no longer is. */
	if (s->was_ready && o->drain_delay_ms)
		(void)is_stopped_within(s, o->drain_delay_ms);
	uint64_t until_ms = clock_ms() + (uint64_t)o->shutdown_timeout_ms;
	http_set_phase(s->http, HTTP_CLOSING);
	http_quiesce(s->http);
	if (!wait_for_requests(s, until_ms, QUIET_MS)) {
		log_warn("stopping with requests unfinished");
		until_ms = 0;
	}
	hub_stop(s->hub, BYE_MS);
	engine_stop(s->engine, until_ms * 1000);
	(void)wait_for_requests(s, clock_ms() + LAST_BYTES_MS, LAST_QUIET_MS);
	/* After the workers: writes wait for it. */
	listener_stop(s->changes.listener);
	courier_stop(s->courier);
	pool_stop(s->pool);
	http_stop(s->http);
}

/* ---- the whole ----------------------------------------------------------------------- */

static void server_free(struct server *s)
{
	http_free(&s->http);
	courier_free(&s->courier);
	hub_free(&s->hub);
	callers_done(&s->callers);
	covering_done(&s->covering);
	engine_free(&s->engine);
	live_free(&s->live);
	changes_done(&s->changes);
	pool_free(&s->pool);
	cache_free(&s->cache);
	generations_free(&s->generations);
	snapshot_set(s->catalog, NULL);
	snapshot_free(&s->catalog);
	config_free(&s->config);
}

/* What the stream, or the time, says is to be looked at. */
static void look(struct server *s)
{
	unsigned news = changes_take(&s->changes);
	if (news & NEWS_IDENTITIES)
		callers_hasten(&s->callers);
	if (news & NEWS_TRIGGERS)
		covering_hasten(&s->covering);
	if (callers_due_in_ms(&s->callers) == 0)
		(void)callers_look(&s->callers);
	if (covering_due_in_ms(&s->covering) == 0)
		(void)covering_look(&s->covering, (struct catalog *)snapshot_use(s->catalog),
		                    s->config);
}

static int run(struct server *s, struct catalog *catalog)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	if (start(s, errs) < 0) {
		log_errors("cannot start", errs);
		catalog_free(&catalog);
		return 1;
	}
	log_info("listening", LOGS("address", s->config->http.listen),
	         LOGU("port", http_port(s->http)), LOGU("workers", s->config->engine.threads),
	         LOGU("pool_max", s->config->pool.max));
	size_t endpoints = catalog->endpoints;
	int r = bring_up(s, catalog);
	if (r == 0)
		log_info("ready", LOGU("endpoints", endpoints));
	if (r == 0 && s->put_off)
		reload(s);
	while (r == 0) {
		int sig = signals_or_readable_within(
		    &s->signals, s->changes.wake,
		    MIN(callers_due_in_ms(&s->callers), covering_due_in_ms(&s->covering)));
		if (is_stop(sig))
			break;
		if (sig == SIGHUP)
			reload(s);
		else
			look(s);
	}
	return r < 0;
}

/* The threads that run() started are gone when this returns. */
static int run_and_stop(struct server *s, struct catalog *catalog)
{
	int status = run(s, catalog);
	stop(s);
	janitor_stop(&s->janitor);
	return status;
}

/* A core dump would hold what callers and libpq's buffers hold: tokens of this moment, the
 * database's password. The secrets of [auth] lie in pages that dumps leave out anyway. Without
 * callers to identify a developer may attach a debugger. */
static void protect_memory(const struct config *c)
{
	if (c->auth.mode != AUTH_NONE)
		(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int serve(struct config *config, struct catalog *catalog, struct auth *auth,
          const struct serve_options *o)
{
	struct server s = {.config = config, .pidfile = o->pidfile, .pidfile_fd = -1};
	s.test_echo = o->test_echo;
	protect_memory(config);
	signals_init(&s.signals);
	descriptors_raise();
	cache_tune_allocator();
	int r = log_start();
	if (r < 0) {
		fprintf(stderr, "provost: cannot start the log's thread: %s\n", strerror(-r));
		catalog_free(&catalog);
		auth_free(&auth);
		config_free(&config);
		return 1;
	}
	apply_log_level(config);

	s.catalog = snapshot_new();
	s.generations = generations_new();
	s.cache = cache_new(&config->cache, s.generations);
	s.pool = pool_new(&config->pool);
	changes_init(&s.changes, config, s.generations, s.catalog);
	changes_warn(config);
	s.engine = engine_new(&config->engine, s.pool, s.cache, s.generations, s.changes.listener);
	s.live = live_new(s.catalog, s.cache, s.engine, s.generations);
	callers_init(&s.callers, auth, config, s.signals.stop_fd);
	covering_init(&s.covering, s.generations, s.signals.stop_fd);
	int status = 1;
	int fits = descriptors_fit(config, &s.clients);
	struct http_options http = http_options(config);
	http.max_connections = s.clients.connections;
	const struct hub_options hub = hub_options(&s, config);
	s.hub = hub_new(&hub, s.callers.auth, s.live);
	const struct courier_options courier = courier_options(config);
	s.courier = courier_new(&courier, s.hub);
	changes_tell(&s.changes, s.hub, s.courier);
	s.http = http_new(&http, &(struct http_parts){.catalog = s.catalog,
	                                              .cache = s.cache,
	                                              .generations = s.generations,
	                                              .engine = s.engine,
	                                              .pool = s.pool,
	                                              .listener = s.changes.listener,
	                                              .auth = s.callers.auth,
	                                              .identities = s.callers.identities,
	                                              .hub = s.hub,
	                                              .courier = s.courier,
	                                              .test_echo = s.test_echo});
	if (fits == 0 && take_pidfile(&s) == 0)
		status = run_and_stop(&s, catalog);
	else
		catalog_free(&catalog);
	pidfile_remove(o->pidfile, s.pidfile_fd);
	server_free(&s);
	signals_done(&s.signals);
	log_info("stopped", LOGI("status", status));
	log_stop();
	return status;
}
