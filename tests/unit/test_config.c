#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/config.h"
#include "provost/log.h"

#define URL   "url = postgresql://app@db/main\n"
#define DB    "[database]\n" URL
#define PLACE "etc/provost.ini"

static const char *const no_env[] = {NULL};

/* environ's type for literals, which may not be written to. */
static char *const *environ_of(const char *const *env)
{
	static char text[8][128];
	static char *list[9];
	size_t n = 0;

	for (; env[n]; n++) {
		ck_assert_uint_lt(n, 8);
		ck_assert_uint_lt(strlen(env[n]), 128);
		list[n] = strcpy(text[n], env[n]);
	}
	list[n] = NULL;
	return list;
}

static struct config *parse(const char *text, const char *const *env, struct errors *errs)
{
	return config_parse(PLACE, text, strlen(text), environ_of(env), errs);
}

/* The configuration of a text that has nothing wrong with it. */
static struct config *good_env(const char *text, const char *const *env)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct config *c = parse(text, env, errs);

	ck_assert_msg(c != NULL, "%s", errors_text(errs, 0));
	ck_assert_uint_eq(errors_count(errs), 0);
	return c;
}

static struct config *good(const char *text)
{
	return good_env(text, no_env);
}

/* All errors of a text, a line each. */
static char *wrong_env(const char *text, size_t len, const char *const *env)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct config *c = config_parse(PLACE, text, len, environ_of(env), errs);
	char *all = NULL;
	size_t size;
	FILE *f;

	ck_assert_ptr_null(c);
	f = open_memstream(&all, &size);
	errors_print(errs, f);
	fclose(f);
	return all;
}

/* ---- what a good file gives ------------------------------------------------------------------ */

START_TEST(defaults_hold_without_a_file)
{
	static const char *const env[] = {"DATABASE_URL=postgresql://db/main", NULL};
	_cleanup_config_ struct config *c = NULL;
	_cleanup_errors_ struct errors *errs = errors_new();

	c = config_load(NULL, environ_of(env), errs);
	ck_assert_ptr_nonnull(c);
	ck_assert_ptr_null(c->file);
	ck_assert_str_eq(c->endpoints_dir, "endpoints");
	ck_assert_str_eq(c->http.listen, "127.0.0.1:8080");
	ck_assert_uint_eq(c->http.threads, 0);
	ck_assert_uint_eq(c->http.max_connections, 1000);
	ck_assert_uint_eq(c->http.origins.count, 0);
	ck_assert_int_eq(c->http.max_url, 8192);
	ck_assert_int_eq(c->http.max_body, 1048576);
	ck_assert_int_eq(c->http.idle_timeout_ms, 60000);
	ck_assert_int_eq(c->http.header_timeout_ms, 10000);
	ck_assert_int_eq(c->http.drain_delay_ms, 0);
	ck_assert_int_eq(c->http.shutdown_timeout_ms, 10000);
	ck_assert_str_eq(c->http.access_log, "off");
	ck_assert(!c->http.development);
	ck_assert_uint_eq(c->engine.threads, 8);
	ck_assert_uint_eq(c->engine.queue, 1024);
	ck_assert_int_eq(c->engine.queue_timeout_ms, 2000);
	ck_assert_int_eq(c->engine.statement_timeout_ms, 10000);
	ck_assert_int_eq(c->cache.capacity, 256 << 20);
	ck_assert_uint_eq(c->cache.shards, 16);
	ck_assert_str_eq(c->cache.policy, "lru");
	ck_assert_int_eq(c->cache.max_entry, 4 << 20);
	ck_assert_int_eq(c->cache.negative_ttl_ms, 5000);
	ck_assert_int_eq(c->freshness.ttl_ms, 600000);
	ck_assert_int_eq(c->freshness.swr_ms, 0);
	ck_assert_int_eq(c->freshness.max_stale_ms, 0);
	ck_assert_int_eq(c->freshness.stale_if_error_ms, 3600000);
	ck_assert(c->compression.gzip && c->compression.br);
	ck_assert_str_eq(c->pool.url, "postgresql://db/main");
	ck_assert_uint_eq(c->pool.min, 2);
	ck_assert_uint_eq(c->pool.max, 8);
	ck_assert_int_eq(c->pool.acquire_timeout_ms, 1000);
	ck_assert_int_eq(c->pool.max_lifetime_ms, 1800000);
	ck_assert(c->pool.prepare);
	ck_assert_str_eq(c->log.level, "info");
	ck_assert_int_eq(c->auth.mode, AUTH_TOKEN);
	ck_assert_uint_eq(c->auth.algorithms.count, 0);
	ck_assert_uint_eq(c->auth.jwt_secret.files.count, 0);
	ck_assert_ptr_null(c->auth.jwt_secret.given);
	ck_assert_uint_eq(c->auth.key_files.count, 0);
	ck_assert_ptr_null(c->auth.jwks_file);
	ck_assert_ptr_null(c->auth.issuer);
	ck_assert_uint_eq(c->auth.audience.count, 0);
	ck_assert_str_eq(c->auth.jwt_claims.subject, "sub");
	ck_assert_str_eq(c->auth.jwt_claims.roles, "roles");
	ck_assert_uint_eq(c->auth.nextauth_secret.files.count, 0);
	ck_assert_ptr_null(c->auth.nextauth_secret.given);
	ck_assert_str_eq(c->auth.cookie_claims.subject, "sub");
	ck_assert_str_eq(c->auth.cookie_claims.roles, "role");
	ck_assert_int_eq(c->auth.leeway_s, 15);
	ck_assert_int_eq(c->auth.max_lifetime_s, 0);
	ck_assert_uint_eq(c->overrides, 0);
}
END_TEST

START_TEST(every_key_is_read)
{
	_cleanup_config_ struct config *c =
	    good("[http]\nlisten = [::1]:9000\nthreads = 4\nmax_connections = 5\n"
	         "origins = https://a.example, http://b.example:8080\nmax_url = 4KiB\n"
	         "max_body = 2MiB\nidle_timeout = 30s\nheader_timeout = 5s\ndrain_delay = 1s\n"
	         "shutdown_timeout = 3s\naccess_log = /var/log/access\ndevelopment = yes\n"
	         "[workers]\nthreads = 3\nqueue = 7\nqueue_timeout = 500ms\n"
	         "[cache]\ncapacity = 64MiB\nshards = 4\npolicy = lru\nttl = 5m\nswr = 1m\n"
	         "stale_if_error = 0\nmax_entry = 2MiB\nnegative_ttl = 1s\ncompression = gzip\n"
	         "[database]\n" URL "pool_min = 1\npool_max = 4\nacquire_timeout = 250ms\n"
	         "statement_timeout = 1m\nmax_lifetime = 0\nprepare = no\n"
	         "[endpoint b/get]\ntimeout = 2s\nttl = 0\nswr = 2m\nmax_stale = 3s\n"
	         "stale_if_error = 2h\n[endpoint a/get]\n"
	         "[log]\nlevel = debug\n");

	ck_assert_str_eq(c->file, PLACE);
	ck_assert_str_eq(c->endpoints_dir, "etc/endpoints");
	ck_assert_str_eq(c->http.listen, "[::1]:9000");
	ck_assert_uint_eq(c->http.threads, 4);
	ck_assert_uint_eq(c->http.max_connections, 5);
	ck_assert_uint_eq(c->http.origins.count, 2);
	ck_assert_str_eq(c->http.origins.item[1], "http://b.example:8080");
	ck_assert_int_eq(c->http.max_url, 4096);
	ck_assert_int_eq(c->http.max_body, 2097152);
	ck_assert_int_eq(c->http.idle_timeout_ms, 30000);
	ck_assert_int_eq(c->http.header_timeout_ms, 5000);
	ck_assert_int_eq(c->http.drain_delay_ms, 1000);
	ck_assert_int_eq(c->http.shutdown_timeout_ms, 3000);
	ck_assert_str_eq(c->http.access_log, "/var/log/access");
	ck_assert(c->http.development);
	ck_assert_uint_eq(c->engine.threads, 3);
	ck_assert_uint_eq(c->engine.queue, 7);
	ck_assert_int_eq(c->engine.queue_timeout_ms, 500);
	ck_assert_int_eq(c->engine.statement_timeout_ms, 60000);
	ck_assert_int_eq(c->cache.capacity, 64 << 20);
	ck_assert_uint_eq(c->cache.shards, 4);
	ck_assert_int_eq(c->cache.max_entry, 2 << 20);
	ck_assert_int_eq(c->cache.negative_ttl_ms, 1000);
	ck_assert_int_eq(c->freshness.ttl_ms, 300000);
	ck_assert_int_eq(c->freshness.swr_ms, 60000);
	ck_assert_int_eq(c->freshness.stale_if_error_ms, 0);
	ck_assert(c->compression.gzip && !c->compression.br);
	ck_assert_uint_eq(c->pool.min, 1);
	ck_assert_uint_eq(c->pool.max, 4);
	ck_assert_int_eq(c->pool.acquire_timeout_ms, 250);
	ck_assert_int_eq(c->pool.max_lifetime_ms, 0);
	ck_assert(!c->pool.prepare);
	ck_assert_str_eq(c->log.level, "debug");
	ck_assert_uint_eq(c->overrides, 2);
	ck_assert_str_eq(c->override[0].name, "a/get");
	ck_assert_int_eq(c->override[0].timeout_ms, -1);
	ck_assert_int_eq(c->override[0].freshness.ttl_ms, -1);
	ck_assert_int_eq(c->override[0].freshness.swr_ms, -1);
	ck_assert_int_eq(c->override[0].freshness.max_stale_ms, -1);
	ck_assert_int_eq(c->override[0].freshness.stale_if_error_ms, -1);
	ck_assert_str_eq(c->override[1].name, "b/get");
	ck_assert_int_eq(c->override[1].timeout_ms, 2000);
	ck_assert_uint_eq(c->override[1].line, 36);
	ck_assert_int_eq(c->override[1].freshness.ttl_ms, 0);
	ck_assert_int_eq(c->override[1].freshness.swr_ms, 120000);
	ck_assert_int_eq(c->override[1].freshness.max_stale_ms, 3000);
	ck_assert_int_eq(c->override[1].freshness.stale_if_error_ms, 7200000);
}
END_TEST

/* Texts that all set [workers] queue to 77 and nothing else. */
static const char *const spellings[] = {
    DB "[workers]\nqueue = 77\n",
    DB "[workers]\nqueue=77",
    DB "[workers]\r\nqueue = 77\r\n",
    DB "[workers]\n\tqueue\t=\t77\t\n",
    DB "  [ workers ]  \n  queue = 77  \n",
    DB "[workers] ; comment\nqueue = 77 ; comment\n",
    DB "[workers] # comment\n# comment\n; comment\n  ; comment\n\n\nqueue = 77\n",
    DB "[workers]\nthreads = 8\n   queue = 77\n",
    DB "[workers]\nqueue: 77\n",
    DB "[workers]\n[log]\n[workers]\nqueue = 77\n",
    "\xef\xbb\xbf" DB "[workers]\nqueue = 77\n",
    "\xef\xbb\xbf[workers]\nqueue = 77\n" DB,
    DB "[workers]\nqueue = 00077\n",
};

START_TEST(every_key_of_auth_is_read)
{
	_cleanup_config_ struct config *c =
	    good(DB "[http]\nlisten = 0.0.0.0:80\n[auth]\nmode = token\nalgorithms = HS256 ,ES256\n"
	            "jwt_secret_file = ./a, /b c\nkey_files = k=/x, y\njwks_file = /jwks\n"
	            "issuer = https://id.example/\naudience = admin, *\nsubject_claim = email\n"
	            "roles_claim = realm_access.roles\nnextauth_secret_file = n\n"
	            "cookie_subject_claim = id\ncookie_roles_claim = user.role\nleeway = 0\n"
	            "max_token_lifetime = 12h\n");
	const struct auth_options *o = &c->auth;

	ck_assert_int_eq(o->mode, AUTH_TOKEN);
	ck_assert_uint_eq(o->algorithms.count, 2);
	ck_assert_str_eq(o->algorithms.item[0], "HS256");
	ck_assert_str_eq(o->algorithms.item[1], "ES256");
	ck_assert_uint_eq(o->jwt_secret.files.count, 2);
	ck_assert_str_eq(o->jwt_secret.files.item[1], "/b c");
	ck_assert_str_eq(o->key_files.item[0], "k=/x");
	ck_assert_str_eq(o->jwks_file, "/jwks");
	ck_assert_str_eq(o->issuer, "https://id.example/");
	ck_assert(strlist_has(&o->audience, "*"));
	ck_assert_str_eq(o->jwt_claims.subject, "email");
	ck_assert_str_eq(o->jwt_claims.roles, "realm_access.roles");
	ck_assert_str_eq(o->nextauth_secret.files.item[0], "n");
	ck_assert_str_eq(o->cookie_claims.subject, "id");
	ck_assert_str_eq(o->cookie_claims.roles, "user.role");
	ck_assert_int_eq(o->leeway_s, 0);
	ck_assert_int_eq(o->max_lifetime_s, 43200);
}
END_TEST

START_TEST(mode_none_is_for_this_machine)
{
	_cleanup_config_ struct config *c =
	    good(DB "[auth]\nmode = none\n[http]\nlisten = [::1]:1\n");

	ck_assert_int_eq(c->auth.mode, AUTH_NONE);
}
END_TEST

START_TEST(spellings_mean_the_same)
{
	_cleanup_config_ struct config *c = good(spellings[_i]);
	_cleanup_config_ struct config *plain = good(DB "[workers]\nqueue = 77\n");

	ck_assert_uint_eq(c->engine.queue, 77);
	ck_assert_uint_eq(config_diff(c, plain, NULL, NULL), 0);
}
END_TEST

START_TEST(switches_have_many_spellings)
{
	static const char *const yes[] = {"yes", "true", "on", "1", "YES"};
	static const char *const no[] = {"no", "false", "off", "0", "No"};

	for (size_t i = 0; i < ELEMENTSOF(yes); i++) {
		_cleanup_free_ char *a = xasprintf(DB "prepare = %s\n", yes[i]);
		_cleanup_free_ char *b = xasprintf(DB "prepare = %s\n", no[i]);
		_cleanup_config_ struct config *x = good(a), *y = good(b);

		ck_assert(x->pool.prepare);
		ck_assert(!y->pool.prepare);
	}
}
END_TEST

START_TEST(long_lines_are_not_cut)
{
	_cleanup_free_ char *path = xcalloc(4001, 1);
	_cleanup_free_ char *text = NULL;
	_cleanup_config_ struct config *c = NULL;

	memset(path, 'p', 4000);
	path[0] = '/';
	text = xasprintf(DB "[http]\naccess_log = %s\nthreads = 3\n", path);
	c = good(text);
	ck_assert_str_eq(c->http.access_log, path);
	ck_assert_uint_eq(c->http.threads, 3);
}
END_TEST

START_TEST(long_endpoint_names_are_not_cut)
{
	_cleanup_config_ struct config *c = good(
	    DB
	    "[endpoint a-rather-long-folder/and-another-one/and-a-file-with-a-long-name-in-it-1]\n"
	    "timeout = 1s\n"
	    "[endpoint a-rather-long-folder/and-another-one/and-a-file-with-a-long-name-in-it-2]\n"
	    "timeout = 2s\n");

	ck_assert_uint_eq(c->overrides, 2);
	ck_assert_int_eq(c->override[1].timeout_ms, 2000);
}
END_TEST

START_TEST(default_of_pool_min_gives_way_to_pool_max)
{
	_cleanup_config_ struct config *c = good(DB "pool_max = 1\n");

	ck_assert_uint_eq(c->pool.max, 1);
	ck_assert_uint_eq(c->pool.min, 1);
}
END_TEST

static const struct {
	const char *text;
	bool gzip, br;
	const char *plain;
} codings[] = {
    {"gzip,br", true, true, "gzip,br"}, {"br , gzip", true, true, "gzip,br"},
    {"gzip", true, false, "gzip"},      {"br", false, true, "br"},
    {"GZIP", true, false, "gzip"},      {"gzip,gzip", true, false, "gzip"},
    {"off", false, false, "off"},
};

START_TEST(codings_are_read)
{
	_cleanup_free_ char *text = xasprintf(DB "[cache]\ncompression = %s\n", codings[_i].text);
	_cleanup_free_ char *plain = xasprintf(DB "[cache]\ncompression = %s\n", codings[_i].plain);
	_cleanup_config_ struct config *c = good(text), *same = good(plain);

	ck_assert(c->compression.gzip == codings[_i].gzip);
	ck_assert(c->compression.br == codings[_i].br);
	ck_assert_uint_eq(config_diff(c, same, NULL, NULL), 0);
}
END_TEST

/* What max_entry is, by capacity and shards; 0: not set. */
static const struct {
	const char *capacity;
	unsigned shards;
	const char *set;
	int64_t want;
} largest[] = {
    {"256MiB", 16, NULL, 4 << 20},   {"256MiB", 8, NULL, 8 << 20},
    {"256MiB", 1, NULL, 8 << 20},    {"1MiB", 16, NULL, 16 << 10},
    {"64KiB", 1, NULL, 16 << 10},    {"1GiB", 16, "16MiB", 16 << 20},
    {"256MiB", 16, "4MiB", 4 << 20}, {"256MiB", 16, "1KiB", 1 << 10},
    {"1GiB", 1024, NULL, 256 << 10},
};

START_TEST(max_entry_follows_unless_set)
{
	_cleanup_free_ char *set =
	    largest[_i].set ? xasprintf("max_entry = %s\n", largest[_i].set) : xstrdup("");
	_cleanup_free_ char *text = xasprintf(DB "[cache]\ncapacity = %s\nshards = %u\n%s",
	                                      largest[_i].capacity, largest[_i].shards, set);
	_cleanup_config_ struct config *c = good(text);

	ck_assert_int_eq(c->cache.max_entry, largest[_i].want);
	ck_assert(c->max_entry_is_set == (largest[_i].set != NULL));
}
END_TEST

/* ---- what is wrong --------------------------------------------------------------------------- */

static const struct {
	const char *text;
	const char *want;
} broken[] = {
    /* sections */
    {"threads = 3\n" DB, PLACE ":1: `threads` stands in no section: put [http], say, above it\n"},
    {DB "[htttp]\nthreads = 3\nnonsense = 1\n",
     PLACE ":3: there is no section [htttp]; did you mean [http]?\n"},
    {DB "[HTTP]\n", PLACE ":3: there is no section [HTTP]; did you mean [http]?\n"},
    {DB "[bananas]\n",
     PLACE ":3: there is no section [bananas]; `provost --help-config` lists them\n"},
    {DB "[]\n", PLACE ":3: there is no section []; `provost --help-config` lists them\n"},
    {DB "[cash]\n", PLACE ":3: there is no section [cash]; did you mean [cache]?\n"},
    {DB "[http\nthreads = 3\n", PLACE ":3: a section's name ends with `]`: write [name]\n" PLACE
                                      ":4: `threads` is a key of [http], not of [database]\n"},
    {DB "[http] threads = 3\n",
     PLACE ":3: nothing but a comment may follow the `]` of a section\n"},
    /* endpoints */
    {DB "[endpoint]\ntimeout = 1s\n",
     PLACE ":3: name the endpoint: write [endpoint courses/get], say\n"},
    {DB "[endpoint  ]\n", PLACE ":3: name the endpoint: write [endpoint courses/get], say\n"},
    {DB "[endpoint a/get]\ntimeout = 1s\n[endpoint  a/get ]\ntimeout = 2s\n",
     PLACE ":5: [endpoint a/get] has begun in line 3 already: put its keys there\n"},
    {DB "[endpoint a/get]\ntimeout = 1s\ntimeout = 2s\n",
     PLACE ":5: [endpoint] timeout is set in line 4 already: keep one of them\n"},
    {DB "[endpoint a/get]\ntimeout = 0\n", PLACE
     ":4: [endpoint] timeout: `0` is not accepted; write a duration (500ms, 10s, 5m, 1h) from "
     "10ms to 1h\n"},
    {DB "[endpoint a/get]\nttls = 1s\n",
     PLACE ":4: [endpoint] has no key `ttls`; did you mean `ttl`?\n"},
    {DB "[endpoint a/get]\nttl = -1s\n",
     PLACE ":4: [endpoint] ttl: `-1s` is not accepted; write a duration (500ms, 10s, 5m, 1h) from "
           "1ms to 365d, or 0 (never: the database is asked each time)\n"},
    {DB "[endpoint a/get]\nnegative_ttl = 1s\n",
     PLACE ":4: `negative_ttl` is a key of [cache], not of [endpoint]\n"},
    /* the cache */
    {DB "[cache]\nshards = 12\n",
     PLACE ":4: [cache] shards: `12` is not accepted; write a power of two from 1 to 1024\n"},
    {DB "[cache]\nshards = 0\n",
     PLACE ":4: [cache] shards: `0` is not accepted; write a power of two from 1 to 1024\n"},
    {DB "[cache]\nshards = 2048\n",
     PLACE ":4: [cache] shards: `2048` is not accepted; write a power of two from 1 to 1024\n"},
    {DB "[cache]\npolicy = lfu\n", PLACE ":4: [cache] policy: `lfu` is not accepted; write lru\n"},
    {DB "[cache]\ncompression = zstd\n", PLACE
     ":4: [cache] compression: `zstd` is not accepted; write gzip, br, both (gzip,br), or off\n"},
    {DB "[cache]\ncompression = gzip,\n", PLACE
     ":4: [cache] compression: `gzip,` is not accepted; write gzip, br, both (gzip,br), or off\n"},
    {DB "[cache]\ncompression = gzip br\n",
     PLACE ":4: [cache] compression: `gzip br` is not "
           "accepted; write gzip, br, both (gzip,br), or off\n"},
    {DB "[cache]\ncompression = gzip,off\n",
     PLACE ":4: [cache] compression: `gzip,off` is not "
           "accepted; write gzip, br, both (gzip,br), or off\n"},
    {DB "[cache]\ncompression =\n",
     PLACE ":4: [cache] compression: `` is not accepted; write gzip, br, both (gzip,br), or off\n"},
    {DB "[cache]\ncapacity = 1KiB\n", PLACE ":4: [cache] capacity: `1KiB` is not accepted; write a "
                                            "size (4096, 64KiB, 16MiB) from 64KiB to "
                                            "1024GiB\n"},
    {DB "[cache]\nnegative_ttl = 2h\n", PLACE
     ":4: [cache] negative_ttl: `2h` is not accepted; write a duration (500ms, 10s, 5m, 1h) from "
     "1ms to 1h, or 0 (never stored)\n"},
    /* keys */
    {DB "[http]\nthread = 3\n", PLACE ":4: [http] has no key `thread`; did you mean `threads`?\n"},
    {DB "[http]\nmax-body = 1MiB\n",
     PLACE ":4: [http] has no key `max-body`; did you mean `max_body`?\n"},
    {DB "[http]\nLISTEN = 127.0.0.1:1\n",
     PLACE ":4: [http] has no key `LISTEN`; did you mean `listen`?\n"},
    {DB "[http]\npool_max = 3\n", PLACE ":4: `pool_max` is a key of [database], not of [http]\n"},
    {DB "[http]\nbananas = 3\n",
     PLACE ":4: [http] has no key `bananas`; `provost --help-config` lists them\n"},
    {DB "[http]\nthreads = 3\nthreads = 3\n",
     PLACE ":5: [http] threads is set in line 4 already: keep one of them\n"},
    {DB "[http]\nthreads = 3\n[log]\n[http]\nthreads = 3\n",
     PLACE ":7: [http] threads is set in line 4 already: keep one of them\n"},
    {DB "[http]\nthreads\n", PLACE ":4: write `key = value`, [section], or a comment behind `;`\n"},
    {DB "[http]\n= 3\n", PLACE ":4: write `key = value`, [section], or a comment behind `;`\n"},
    /* lines */
    {DB "[http]\nthreads = 3 # comment\n",
     PLACE ":4: [http] threads: a comment behind a value begins with ` ;`\n"},
    {DB "[http]\naccess_log = /tmp/\xff\n", PLACE ":4: the line is not UTF-8\n"},
    /* values */
    {DB "[http]\nthreads =\n", PLACE
     ":4: [http] threads: `` is not accepted; write a whole number from 1 to 64, or 0 (one per "
     "core)\n"},
    {DB "[http]\nthreads = 65\n",
     PLACE ":4: [http] threads: `65` is not accepted; write a whole number from 1 to 64, or 0 (one "
           "per core)\n"},
    {DB "[http]\nthreads = -1\n",
     PLACE ":4: [http] threads: `-1` is not accepted; write a whole number from 1 to 64, or 0 (one "
           "per core)\n"},
    {DB "[http]\nmax_connections = 99999999999999999999\n", PLACE
     ":4: [http] max_connections: `99999999999999999999` is not accepted; write a whole number "
     "from 1 to 100000\n"},
    {DB "[workers]\nqueue = 0x10\n",
     PLACE ":4: [workers] queue: `0x10` is not accepted; write a whole number from 1 to 1000000\n"},
    {DB "[http]\nmax_url = 8K\n", PLACE
     ":4: [http] max_url: `8K` is not accepted; write a size (4096, 64KiB, 16MiB) from 256 to "
     "32KiB\n"},
    {DB "[http]\nmax_body = 65MiB\n",
     PLACE ":4: [http] max_body: `65MiB` is not accepted; write a size (4096, 64KiB, 16MiB) from 1 "
           "to 64MiB\n"},
    {DB "[http]\nidle_timeout = 60\n",
     PLACE ":4: [http] idle_timeout: `60` is not accepted; write a duration (500ms, 10s, 5m, 1h) "
           "from 10ms to 1h\n"},
    {DB "statement_timeout = 9ms\n",
     PLACE ":3: [database] statement_timeout: `9ms` is not accepted; write a duration (500ms, 10s, "
           "5m, 1h) from 10ms to 1h\n"},
    {DB "max_lifetime = 8d\n", PLACE
     ":3: [database] max_lifetime: `8d` is not accepted; write a duration (500ms, 10s, 5m, 1h) "
     "from 1s to 7d, or 0 (no limit)\n"},
    {DB "prepare = maybe\n",
     PLACE ":3: [database] prepare: `maybe` is not accepted; write yes or no\n"},
    {DB "[log]\nlevel = verbose\n",
     PLACE ":4: [log] level: `verbose` is not accepted; write one of error, warn, info, debug\n"},
    {DB "[log]\nlevel = error, warn\n", PLACE
     ":4: [log] level: `error, warn` is not accepted; write one of error, warn, info, debug\n"},
    {DB "[log]\nlevel = nfo\n",
     PLACE ":4: [log] level: `nfo` is not accepted; write one of error, warn, info, debug\n"},
    {DB "[log]\nlevel =\n",
     PLACE ":4: [log] level: `` is not accepted; write one of error, warn, info, debug\n"},
    {DB "[http]\naccess_log = on\n",
     PLACE ":4: [http] access_log: `on` is not accepted; write off, stderr, or the path of a file, "
           "with a / in it\n"},
    {DB "[http]\naccess_log = /var/log/\n", PLACE
     ":4: [http] access_log: `/var/log/` is not accepted; write off, stderr, or the path of a "
     "file, with a / in it\n"},
    {DB "[http]\nlisten = 8080\n",
     PLACE ":4: [http] listen: `8080` is not accepted; write an address with a port "
           "(127.0.0.1:8080, [::1]:8080)\n"},
    {DB "[auth]\nmode = open\n",
     PLACE ":4: [auth] mode: `open` is not accepted; write one of token, none\n"},
    {DB "[auth]\nalgorithms = RS256, none\n",
     PLACE ":4: [auth] algorithms: `RS256, none` is not accepted; write HS256, RS256, ES256 "
           "separated by commas\n"},
    {DB "[auth]\naudience = a,, b\n", PLACE
     ":4: [auth] audience: `a,, b` is not accepted; write texts, or *, separated by commas\n"},
    {DB "[auth]\nkey_files = a,\n",
     PLACE ":4: [auth] key_files: `a,` is not accepted; write paths of files, each as PATH or "
           "KID=PATH, separated by commas\n"},
    {DB "[auth]\nleeway = 1500ms\n", PLACE
     ":4: [auth] leeway: `1500ms` is not accepted; write a duration in whole seconds (10s, 5m, "
     "1h) from 1s to 5m, or 0 (none)\n"},
    {DB "[auth]\nleeway = 6m\n",
     PLACE ":4: [auth] leeway: `6m` is not accepted; write a duration in whole seconds (10s, 5m, "
           "1h) from 1s to 5m, or 0 (none)\n"},
    {DB "[auth]\njwt_secret = hunter2\n",
     PLACE ":4: [auth] has no key `jwt_secret`; `provost --help-config` lists them\n"},
    /* contradictions */
    {DB "[http]\nlisten = 0.0.0.0:8080\n[auth]\nmode = none\n",
     PLACE ":6: [auth] mode: with none, whoever reaches the server is its administrator: write "
           "token, or let [http] listen name an address of 127.0.0.0/8, ::1 or localhost\n"},
    {DB "[http]\nlisten = [::]:8080\ndevelopment = yes\n",
     PLACE ":5: [http] development shows the database's words to every caller: write no, or listen "
           "on an address of this machine alone\n"},
    {DB "pool_min = 9\n", PLACE
     ":3: [database] pool_min (9) is more than pool_max (8): lower the one or raise the other\n"},
    {DB "pool_max = 3\npool_min = 4\n", PLACE
     ":4: [database] pool_min (4) is more than pool_max (3): lower the one or raise the other\n"},
    {DB "[cache]\ncapacity = 1MiB\nshards = 32\n", PLACE
     ":4: [cache] capacity (1MiB) is too little for 32 shards, which need 64KiB each: write at "
     "least 2MiB, or fewer shards\n"},
    {DB "[cache]\ncapacity = 512KiB\n", PLACE
     ":4: [cache] capacity (512KiB) is too little for 16 shards, which need 64KiB each: write at "
     "least 1MiB, or fewer shards\n"},
    {DB "[cache]\nmax_entry = 4097KiB\n", PLACE
     ":4: [cache] max_entry (4097KiB) is more than a fourth of a shard's share of capacity (4MiB): "
     "lower it, raise capacity, or write fewer shards\n"},
    {DB "[cache]\nmax_entry = 4MiB\nshards = 32\n", PLACE
     ":4: [cache] max_entry (4MiB) is more than a fourth of a shard's share of capacity (2MiB): "
     "lower it, raise capacity, or write fewer shards\n"},
    /* the database */
    {"",
     PLACE ": no database is set: write `url = postgresql://user:password@host:port/database` into "
           "[database], or set PROVOST_DATABASE_URL or DATABASE_URL\n"},
    {"[log]\n[database]\npool_max = 3\n", PLACE
     ":2: no database is set: write `url = postgresql://user:password@host:port/database` into "
     "[database], or set PROVOST_DATABASE_URL or DATABASE_URL\n"},
    {"[database]\nurl =\n", PLACE
     ":1: no database is set: write `url = postgresql://user:password@host:port/database` into "
     "[database], or set PROVOST_DATABASE_URL or DATABASE_URL\n"},
};

START_TEST(broken_file_says_what_to_do)
{
	_cleanup_free_ char *all = wrong_env(broken[_i].text, strlen(broken[_i].text), no_env);

	ck_assert_str_eq(all, broken[_i].want);
}
END_TEST

START_TEST(all_errors_are_told_at_once)
{
	const char *text =
	    "[http]\nthreads = x\nbananas = 1\n[nowhere]\n[database]\npool_min = 9\n";
	_cleanup_free_ char *all = wrong_env(text, strlen(text), no_env);

	ck_assert_ptr_nonnull(strstr(all, PLACE ":2: "));
	ck_assert_ptr_nonnull(strstr(all, PLACE ":3: "));
	ck_assert_ptr_nonnull(strstr(all, PLACE ":4: "));
	ck_assert_ptr_nonnull(strstr(all, PLACE ":5: no database"));
	ck_assert_ptr_nonnull(strstr(all, PLACE ":6: "));
}
END_TEST

START_TEST(line_that_is_too_long_is_refused)
{
	_cleanup_free_ char *text = xcalloc(6000, 1);
	_cleanup_free_ char *all = NULL;

	strcpy(text, DB "[http]\naccess_log = /");
	memset(text + strlen(text), 'x', 4097);
	strcat(text, "\nthreads = 99\n");
	all = wrong_env(text, strlen(text), no_env);
	ck_assert_ptr_nonnull(strstr(all, PLACE ":4: the line is longer than 4096 bytes\n"));
	ck_assert_ptr_nonnull(strstr(all, PLACE ":5: [http] threads: `99` is not accepted"));
}
END_TEST

START_TEST(nul_byte_is_refused)
{
	static const char text[] = DB "[http]\nthreads = 3\0 4\nmax_connections = 5\n";
	_cleanup_free_ char *all = wrong_env(text, sizeof(text) - 1, no_env);

	ck_assert_str_eq(all, PLACE ":4: the line holds a NUL byte: this is not a text file\n");
}
END_TEST

START_TEST(long_value_is_shown_in_part)
{
	_cleanup_free_ char *text = xcalloc(1000, 1), *all = NULL;

	strcpy(text, DB "[http]\nthreads = ");
	for (int i = 0; i < 200; i++)
		strcat(text, "€");
	all = wrong_env(text, strlen(text), no_env);
	ck_assert_uint_lt(strlen(all), 250);
	ck_assert_int_ge(utf8_length(all, strlen(all)), 0);
}
END_TEST

START_TEST(errors_are_bounded)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_free_ char *text = xcalloc(20000, 1);

	for (int i = 0; i < 1000; i++)
		strcat(text + 4 * i, "[x]\n");
	ck_assert_ptr_null(parse(text, no_env, errs));
	ck_assert_uint_eq(errors_count(errs), 1001);
	ck_assert_ptr_null(errors_text(errs, ERRORS_MAX));
}
END_TEST

START_TEST(every_prefix_of_a_file_is_survived)
{
	const char *text =
	    "\xef\xbb\xbf[http] ; c\nlisten = 127.0.0.1:1 ; c\norigins = https://a, https://b\n"
	    "[endpoint a/b]\ntimeout = 1s\n" DB "[log]\nlevel = warn\n";

	for (size_t n = 0; n <= strlen(text); n++) {
		_cleanup_errors_ struct errors *errs = errors_new();
		_cleanup_free_ char *exact = malloc(n ? n : 1);
		_cleanup_config_ struct config *c = NULL;

		memcpy(exact, text, n);
		c = config_parse(PLACE, exact, n, environ_of(no_env), errs);
		ck_assert((c == NULL) == (errors_count(errs) > 0));
	}
}
END_TEST

START_TEST(file_that_is_not_there_is_an_error)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_ptr_null(config_load("/nonexistent/provost.ini", environ_of(no_env), errs));
	ck_assert_str_eq(
	    errors_text(errs, 0),
	    "/nonexistent/provost.ini: the file cannot be read: No such file or directory");
}
END_TEST

START_TEST(folder_is_no_file)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_ptr_null(config_load("/", environ_of(no_env), errs));
	ck_assert_str_eq(errors_text(errs, 0), "/: the file cannot be read: Is a directory");
}
END_TEST

START_TEST(endless_file_is_an_error)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_ptr_null(config_load("/dev/zero", environ_of(no_env), errs));
	ck_assert_str_eq(errors_text(errs, 0),
	                 "/dev/zero: the file is larger than 1MiB: this is no configuration");
}
END_TEST

/* ---- origins --------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	const char *want;  /* NULL: refused */
	const char *error; /* what the refusal says */
} origins[] = {
    {"", "", NULL},
    {"https://a.example", "https://a.example", NULL},
    {"https://a.example,http://b.example", "https://a.example http://b.example", NULL},
    {" https://a.example , https://b.example ", "https://a.example https://b.example", NULL},
    {"HTTPS://A.Example", "https://a.example", NULL},
    {"https://a.example:443, http://a.example:80", "https://a.example http://a.example", NULL},
    {"http://a.example:443", "http://a.example:443", NULL},
    {"https://a, https://A, https://a:443", "https://a", NULL},
    {"http://localhost:3000", "http://localhost:3000", NULL},
    {"http://[::1]:3000", "http://[::1]:3000", NULL},
    {"chrome-extension://abcdef", "chrome-extension://abcdef", NULL},
    {"*", NULL, "write an origin as scheme://host"},
    {"https://*.example", NULL, "there is no `*`"},
    {"null", NULL, "write an origin as scheme://host"},
    {"a.example", NULL, "write an origin as scheme://host"},
    {"://a", NULL, "write an origin as scheme://host"},
    {"9p://a", NULL, "write an origin as scheme://host"},
    {"https://", NULL, "write the host"},
    {"https://:80", NULL, "write the host"},
    {"https://a.example/", NULL, "leave out what follows"},
    {"https://a.example/admin", NULL, "leave out what follows"},
    {"https://a.example?x", NULL, "leave out what follows"},
    {"https://u:p@a.example", NULL, "leave user and password out"},
    {"https://a.example:", NULL, "write the port"},
    {"https://a.example:0", NULL, "write the port"},
    {"https://a.example:65536", NULL, "write the port"},
    {"https://a.example:http", NULL, "write the port"},
    {"https://a b", NULL, "write the host"},
    {"https://zürich.example", NULL, "write the host"},
    {"https://[::1", NULL, "write the host"},
    {"https://[]", NULL, "write the host"},
    {"https://a,,https://b", NULL, "before and after each comma"},
    {",", NULL, "before and after each comma"},
    {"https://a,", NULL, "before and after each comma"},
    {"https://a https://b", NULL, "leave out what follows"},
};

START_TEST(origins_are_normalised_or_refused)
{
	_cleanup_free_ char *text = xasprintf(DB "[http]\norigins = %s\n", origins[_i].text);
	_cleanup_free_ char *all = NULL;
	_cleanup_config_ struct config *c = NULL;
	struct strlist *l;

	if (!origins[_i].want) {
		all = wrong_env(text, strlen(text), no_env);
		ck_assert_msg(strstr(all, origins[_i].error) != NULL, "%s", all);
		return;
	}
	c = good(text);
	l = &c->http.origins;
	all = xstrdup("");
	for (size_t i = 0; i < l->count; i++) {
		char *more = xasprintf("%s%s%s", all, i ? " " : "", l->item[i]);

		free(all);
		all = more;
	}
	ck_assert_str_eq(all, origins[_i].want);
}
END_TEST

START_TEST(origins_are_bounded)
{
	_cleanup_free_ char *text = xstrdup(DB "[http]\norigins = https://a0"), *all = NULL;

	for (int i = 1; i <= 64; i++) {
		char *more = xasprintf("%s, https://a%d", text, i);

		free(text);
		text = more;
	}
	all = wrong_env(text, strlen(text), no_env);
	ck_assert_ptr_nonnull(strstr(all, "write at most 64 origins"));
}
END_TEST

/* ---- the environment ------------------------------------------------------------------------- */

START_TEST(environment_comes_before_the_file)
{
	static const char *const env[] = {"HOME=/", "PROVOST_WORKERS_QUEUE=9",
	                                  "PROVOST_DATABASE_POOL_MAX=3",
	                                  "PROVOST_HTTP_LISTEN=127.0.0.1:99", NULL};
	_cleanup_config_ struct config *c =
	    good_env(DB "pool_max = 5\n[http]\nlisten = 127.0.0.1:98\n[workers]\nqueue = 8\n", env);

	ck_assert_uint_eq(c->engine.queue, 9);
	ck_assert_uint_eq(c->pool.max, 3);
	ck_assert_str_eq(c->http.listen, "127.0.0.1:99");
}
END_TEST

START_TEST(empty_variable_counts_as_unset)
{
	static const char *const env[] = {
	    "PROVOST_WORKERS_QUEUE=", "DATABASE_URL=", "PROVOST_DATABASE_URL=", NULL};
	_cleanup_config_ struct config *c = good_env(DB "[workers]\nqueue = 8\n", env);

	ck_assert_uint_eq(c->engine.queue, 8);
	ck_assert_str_eq(c->pool.url, "postgresql://app@db/main");
}
END_TEST

START_TEST(bad_variable_is_named)
{
	static const char *const env[] = {"PROVOST_HTTP_THREADS=many", NULL};
	_cleanup_free_ char *all = wrong_env(DB, strlen(DB), env);

	ck_assert_str_eq(
	    all, "PROVOST_HTTP_THREADS: [http] threads: `many` is not accepted; write a whole "
	         "number from 1 to 64, or 0 (one per core)\n");
}
END_TEST

START_TEST(contradiction_by_variable_is_named)
{
	static const char *const env[] = {"PROVOST_DATABASE_POOL_MIN=20", NULL};
	_cleanup_free_ char *all = wrong_env(DB, strlen(DB), env);

	ck_assert_str_eq(
	    all, "PROVOST_DATABASE_POOL_MIN: [database] pool_min (20) is more than pool_max (8): "
	         "lower the one or raise the other\n");
}
END_TEST

static const struct {
	const char *env[3];
	const char *want;
} urls_from[] = {
    {{NULL}, "postgresql://file"},
    {{"DATABASE_URL=postgresql://plain"}, "postgresql://plain"},
    {{"PROVOST_DATABASE_URL=postgresql://own"}, "postgresql://own"},
    {{"PROVOST_DATABASE_URL=postgresql://own", "DATABASE_URL=postgresql://plain"},
     "postgresql://own"},
    {{"DATABASE_URL=postgresql://plain", "PROVOST_DATABASE_URL=postgresql://own"},
     "postgresql://own"},
};

START_TEST(url_has_its_own_precedence)
{
	_cleanup_config_ struct config *c =
	    good_env("[database]\nurl = postgresql://file\n", urls_from[_i].env);

	ck_assert_str_eq(c->pool.url, urls_from[_i].want);
}
END_TEST

START_TEST(bad_url_names_where_it_came_from)
{
	static const char *const plain[] = {"DATABASE_URL=mysql://db", NULL};
	static const char *const own[] = {"PROVOST_DATABASE_URL=mysql://db",
	                                  "DATABASE_URL=postgresql://db", NULL};
	_cleanup_free_ char *a = wrong_env(DB, strlen(DB), plain);
	_cleanup_free_ char *b = wrong_env(DB, strlen(DB), own);

	ck_assert_mem_eq(a, "DATABASE_URL: [database] url: ", 30);
	ck_assert_mem_eq(b, "PROVOST_DATABASE_URL: [database] url: ", 38);
}
END_TEST

static config_diff_fn collect;

static void expect_secret(const struct secret *s, const char *want)
{
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(secret_len(s), strlen(want));
	ck_assert_mem_eq(secret_bytes(s), want, strlen(want));
}

START_TEST(secrets_are_taken_from_the_environment_and_wiped_there)
{
	static const char *const given[] = {"NEXTAUTH_SECRET=plain",
	                                    "PROVOST_AUTH_NEXTAUTH_SECRET=own",
	                                    "PROVOST_AUTH_JWT_SECRET=jwt", "HOME=/", NULL};
	char *const *env = environ_of(given);
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_config_ struct config *c = config_parse(PLACE, DB, strlen(DB), env, errs);
	_cleanup_config_ struct config *again = NULL;
	_cleanup_free_ char *all = xstrdup("");

	ck_assert_ptr_nonnull(c);
	expect_secret(c->auth.jwt_secret.given, "jwt");
	expect_secret(c->auth.nextauth_secret.given, "own");
	for (size_t i = 0; i < 3; i++) {
		size_t name = strcspn(given[i], "=") + 1;

		for (size_t at = name; given[i][at]; at++)
			ck_assert_int_eq(env[i][at], '\0');
	}
	ck_assert_str_eq(env[3], "HOME=/");

	/* A reload finds none there and keeps those that run. */
	again = config_parse(PLACE, DB, strlen(DB), env, errs);
	ck_assert_ptr_null(again->auth.jwt_secret.given);
	ck_assert_int_eq(config_keep_restart(again, c, errs), 0);
	expect_secret(again->auth.jwt_secret.given, "jwt");
	expect_secret(again->auth.nextauth_secret.given, "own");
	ck_assert_uint_eq(config_diff(c, again, collect, &all), 0);
}
END_TEST

START_TEST(nextauths_own_variable_is_known)
{
	static const char *const env[] = {"NEXTAUTH_SECRET=plain", NULL};
	_cleanup_config_ struct config *c = good_env(DB, env);

	expect_secret(c->auth.nextauth_secret.given, "plain");
	ck_assert_ptr_null(c->auth.jwt_secret.given);
}
END_TEST

START_TEST(development_is_not_turned_on_for_others)
{
	_cleanup_config_ struct config *running = good(DB "[http]\nlisten = 0.0.0.0:80\n");
	_cleanup_config_ struct config *c = good(DB "[http]\ndevelopment = yes\n");
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_int_eq(config_keep_restart(c, running, errs), -EINVAL);
	ck_assert_ptr_nonnull(strstr(errors_text(errs, 0), "[http] development shows"));
}
END_TEST

START_TEST(unknown_variables_are_warned_of_and_ignored)
{
	static const char *const env[] = {"PROVOST_HTTP_LISTN=secret",
	                                  "PROVOST_ENDPOINT_TIMEOUT=1s",
	                                  "PROVOST_URL=http://127.0.0.1/",
	                                  "PROVOST_TOKEN=secret",
	                                  "PROVOSTX=1",
	                                  NULL};
	_cleanup_config_ struct config *c = NULL;
	FILE *f = tmpfile();
	char said[1000] = "";

	ck_assert_int_ge(dup2(fileno(f), STDERR_FILENO), 0);
	c = good_env(DB, env);
	ck_assert_uint_gt(pread(fileno(f), said, sizeof(said) - 1, 0), 0);
	ck_assert_ptr_nonnull(strstr(said, "level=warn"));
	ck_assert_ptr_nonnull(strstr(said, "variable=PROVOST_HTTP_LISTN\n"));
	ck_assert_ptr_nonnull(strstr(said, "variable=PROVOST_ENDPOINT_TIMEOUT\n"));
	ck_assert_ptr_null(strstr(said, "secret"));
	ck_assert_ptr_null(strstr(said, "PROVOST_URL"));
	ck_assert_ptr_null(strstr(said, "PROVOST_TOKEN"));
	ck_assert_ptr_null(strstr(said, "PROVOSTX"));
	fclose(f);
}
END_TEST

/* ---- database URLs --------------------------------------------------------------------------- */

static const struct {
	const char *url;
	const char *want; /* for libpq; NULL: as it is */
} urls[] = {
    {"postgresql://", NULL},
    {"postgresql://db", NULL},
    {"postgresql://user:p%40ss@host:5432/db", NULL},
    {"postgresql://h1:1/db?target_session_attrs=read-write", NULL},
    {"postgresql://[::1]:5432/db", NULL},
    {"postgresql:///db?host=%2Frun%2Fpostgresql", NULL},
    {"postgresql:///db?host=/run/postgresql", "postgresql:///db?host=%2Frun%2Fpostgresql"},
    {"postgres://db/main", "postgresql://db/main"},
    {"POSTGRES://db/main", "postgresql://db/main"},
    {"postgresql+psycopg2://u@db/main", "postgresql://u@db/main"},
    {"postgres+asyncpg://u@db/main", "postgresql://u@db/main"},
    {"host=/run/postgresql dbname=app user=app", NULL},
    {"dbname=app password='a b://c'", NULL},
    {"postgresql://u:a?b#c@db/main", NULL},
    {"postgresql://u:a?b@db/main?pgbouncer=true", "postgresql://u:a?b@db/main"},
    /* parameters of ORMs */
    {"postgresql://db/main?schema=public",
     "postgresql://db/main?options=-c%20search_path%3Dpublic"},
    {"postgresql://db/main?schema=My%20App",
     "postgresql://db/main?options=-c%20search_path%3D%22My%5C%20App%22"},
    {"postgresql://db/main?schema=a%22b%5Cc",
     "postgresql://db/main?options=-c%20search_path%3D%22a%22%22b%5C%5Cc%22"},
    {"postgresql://db/main?schema=9lives",
     "postgresql://db/main?options=-c%20search_path%3D%229lives%22"},
    {"postgresql://db/main?schema=app&options=-c%20geqo%3Doff",
     "postgresql://db/main?options=-c%20geqo%3Doff%20-c%20search_path%3Dapp"},
    {"postgresql://db/main?options=-c%20geqo%3Doff", NULL},
    {"postgresql://u:p%40ss@db:5432/"
     "main?schema=public&connection_limit=5&pool_timeout=10&pgbouncer=true"
     "&sslmode=prefer&connect_timeout=3&socket_timeout=7&statement_cache_size=0",
     "postgresql://u:p%40ss@db:5432/"
     "main?sslmode=prefer&connect_timeout=3&options=-c%20search_path%3D"
     "public"},
    {"postgresql://db/main?&pgbouncer=false&&", "postgresql://db/main"},
    {"postgresql://db/main?max_idle_connection_lifetime=3&max_connection_lifetime=2&"
     "single_use_connections=true",
     "postgresql://db/main"},
    {"postgresql://db/main?ssl=true", "postgresql://db/main?sslmode=require"},
    {"postgresql://db/main?sslaccept=accept_invalid_certs&sslmode=require",
     "postgresql://db/main?sslmode=require"},
    {"postgresql://db/main?sslaccept=strict&sslmode=verify-full&sslrootcert=ca.pem",
     "postgresql://db/main?sslmode=verify-full&sslrootcert=ca.pem"},
    {"postgresql://db/main?sslcert=a.crt&sslkey=a.key", NULL},
};

static struct config *good_url(const char *url, const char *more)
{
	_cleanup_free_ char *text = xasprintf("[database]\nurl = %s\n%s", url, more);

	return good(text);
}

START_TEST(urls_are_made_libpqs)
{
	_cleanup_config_ struct config *c = good_url(urls[_i].url, "");

	ck_assert_str_eq(c->pool.url, urls[_i].want ? urls[_i].want : urls[_i].url);
}
END_TEST

/* Every one has the password `hunter2`, which nobody may read in an error. */
static const struct {
	const char *url;
	const char *says;
} bad_urls[] = {
    {"jdbc:postgresql://db/main?user=u&password=hunter2", "this is a URL for JDBC"},
    {"mysql://u:hunter2@db/main", "this is no URL of a PostgreSQL database"},
    {"postgresqlx://u:hunter2@db/main", "this is no URL of a PostgreSQL database"},
    {"postgresql:x://u:hunter2@db/main", "this is no URL of a PostgreSQL database"},
    {"prisma+postgres://u:hunter2@db/main", "this is no URL of a PostgreSQL database"},
    {"u:hunter2@db/main", "write a URL"},
    {"file:./hunter2.db", "write a URL"},
    {"host=db password=hunter2 oops", "write a URL"},
    {"host=db password='hunter2", "unterminated quoted string"},
    {"host=db hunter2=x", "libpq cannot read it (invalid connection option)"},
    {"host=a,b password=hunter2", "name one host"},
    {"hostaddr=127.0.0.1,127.0.0.2 password=hunter2", "name one host"},
    {"postgresql://u:hunter2@a:1,b:2/main", "name one host"},
    {"postgresql://u:hunter2@/main?host=/tmp,b", "name one host"},
    {"host=db password=hunter2 port=http", "write the port as a number"},
    {"host=db password=hunter2 sslmode=no", "behind `sslmode=`"},
    {"postgresql://u:hunter2%zz@db/main", "libpq cannot read it (invalid percent-encoded token)"},
    {"postgresql://u:hunter2%00@db/main",
     "libpq cannot read it (forbidden value %00 in percent-encoded "
     "value)"},
    {"postgresql://u:hunter2@[::1/main", "libpq cannot read it (end of string reached"},
    {"postgresql://u:hunter2@db:99999/main", "the port is no number"},
    {"postgresql://u:hunter2@db:0/main", "the port is no number"},
    {"postgresql://u:a/hunter2@db/main", "write `/`, `@`, `:`, `?` and `%` as %2F, %40"},
    {"postgresql://u:1/hunter2@db/main", "write `/`, `@`, `:`, `?` and `%` as %2F, %40"},
    {"postgresql://u:a@hunter2@db/main", "write `/`, `@`, `:`, `?` and `%` as %2F, %40"},
    {"postgresql://u:a/x?hunter2@db/main", "write `/`, `@`, `:`, `?` and `%` as %2F, %40"},
    {"postgresql://u:1/x?hunter2@db/main", "write each parameter"},
    {"postgresql://u:hunter2@db/main?bananas=1", "`bananas` is no parameter"},
    {"postgresql://u:hunter2@db/main?connection_limit", "write each parameter"},
    {"postgresql://u:hunter2@db/main?=1", "write each parameter"},
    {"postgresql://u:hunter2@db/main?password=hunter2%", "the value of `password` has a `%`"},
    {"postgresql://u:hunter2@db/main?password=hunter2%4", "the value of `password` has a `%`"},
    {"postgresql://u:hunter2@db/main?schema=%00", "the value of `schema` has a `%`"},
    {"postgresql://u:hunter2@db/main?schema=", "write a schema's name"},
    {"postgresql://u:hunter2@db/main?connection_limit=x", "write a number of connections"},
    {"postgresql://u:hunter2@db/main?connection_limit=-1", "write a number of connections"},
    {"postgresql://u:hunter2@db/main?connection_limit=0",
     "a limit of 0 connections is out of bounds"},
    {"postgresql://u:hunter2@db/main?connection_limit=5000",
     "a limit of 5000 connections is out of bounds"},
    {"postgresql://u:hunter2@db/main?pool_timeout=10s", "write seconds"},
    {"postgresql://u:hunter2@db/main?pgbouncer=yes", "write true or false behind `pgbouncer=`"},
    {"postgresql://u:hunter2@db/main?prepared_statements=0", "write true or false behind"},
    {"postgresql://u:hunter2@db/main?sslmode=no-verify", "behind `sslmode=`"},
    {"postgresql://u:hunter2@db/main?ssl=false", "instead of `ssl=`"},
    {"postgresql://u:hunter2@db/main?sslaccept=strict", "sslmode=verify-full"},
    {"postgresql://u:hunter2@db/main?sslaccept=strict&sslmode=require", "sslmode=verify-full"},
    {"postgresql://u:hunter2@db/main?sslaccept=maybe", "behind `sslaccept=`"},
    {"postgresql://u:hunter2@db/main?sslcert=ca.pem", "write sslrootcert=FILE for the server's"},
    {"postgresql://u:hunter2@db/main?sslidentity=id.p12&sslpassword=hunter2", "PKCS#12"},
};

START_TEST(bad_urls_say_what_to_do_and_no_password)
{
	_cleanup_free_ char *text = xasprintf("[database]\nurl = %s\n", bad_urls[_i].url);
	_cleanup_free_ char *all = wrong_env(text, strlen(text), no_env);

	ck_assert_msg(strstr(all, bad_urls[_i].says) != NULL, "%s", all);
	ck_assert_msg(strstr(all, "hunter2") == NULL, "%s", all);
	ck_assert_mem_eq(all, PLACE ":2: ", strlen(PLACE ":2: "));
}
END_TEST

START_TEST(url_settings_hold_where_nothing_else_is_said)
{
	_cleanup_config_ struct config *c =
	    good_url("postgresql://db/main?connection_limit=1&pool_timeout=7&pgbouncer=true", "");

	ck_assert_uint_eq(c->pool.max, 1);
	ck_assert_uint_eq(c->pool.min, 1);
	ck_assert_int_eq(c->pool.acquire_timeout_ms, 7000);
	ck_assert(!c->pool.prepare);
}
END_TEST

/* Of a URL of its own, and only what concerns one connection. */
START_TEST(listen_url_is_understood_like_url)
{
	_cleanup_config_ struct config *c = good_url("postgresql://db/main", "");
	ck_assert_ptr_null(c->listener.url);
	ck_assert_int_eq(c->listener.heartbeat_ms, 300);
	ck_assert_int_eq(c->listener.sync_timeout_ms, 2000);
	config_free(&c);
	c = good_url(
	    "postgresql://pooler/main",
	    "listen_url = postgres://app:secret@db/main?connection_limit=1&pgbouncer=true\n");
	ck_assert_str_eq(c->listener.url, "postgresql://app:secret@db/main");
	ck_assert(c->pool.prepare);
	ck_assert_uint_eq(c->pool.max, 8);
	config_free(&c);

	static const char *const env[] = {"PROVOST_DATABASE_LISTEN_URL=postgresql://direct/main",
	                                  "DATABASE_URL=postgresql://other/main", NULL};
	c = good_env("", env);
	ck_assert_str_eq(c->pool.url, "postgresql://other/main");
	ck_assert_str_eq(c->listener.url, "postgresql://direct/main");

	static const char text[] = "[database]\nurl = postgresql://db/main\n"
	                           "listen_url = mysql://app:secret@db/main\n";
	_cleanup_free_ char *all = wrong_env(text, strlen(text), no_env);
	ck_assert_msg(strstr(all, ":3: [database] listen_url: ") && !strstr(all, "secret"), "%s",
	              all);
}
END_TEST

START_TEST(url_settings_give_way_to_the_file)
{
	_cleanup_config_ struct config *c =
	    good_url("postgresql://db/main?connection_limit=1&pool_timeout=7&pgbouncer=true",
	             "pool_max = 6\nacquire_timeout = 2s\nprepare = yes\n");

	ck_assert_uint_eq(c->pool.max, 6);
	ck_assert_uint_eq(c->pool.min, 2);
	ck_assert_int_eq(c->pool.acquire_timeout_ms, 2000);
	ck_assert(c->pool.prepare);
}
END_TEST

START_TEST(url_settings_give_way_to_the_environment)
{
	static const char *const env[] = {"PROVOST_DATABASE_POOL_MAX=6", NULL};
	_cleanup_config_ struct config *c =
	    good_env("[database]\nurl = postgresql://db/main?connection_limit=100000\n", env);

	ck_assert_uint_eq(c->pool.max, 6);
}
END_TEST

START_TEST(url_settings_of_others_than_prisma)
{
	_cleanup_config_ struct config *a =
	    good_url("postgresql://db/main?pool=5&prepared_statements=false", "");
	_cleanup_config_ struct config *b =
	    good_url("postgresql://db/main?statement_cache_size=0", "");
	_cleanup_config_ struct config *c =
	    good_url("postgresql://db/main?statement_cache_size=100", "");
	_cleanup_config_ struct config *d = good_url("postgresql://db/main?pool_timeout=0", "");

	ck_assert_uint_eq(a->pool.max, 5);
	ck_assert(!a->pool.prepare);
	ck_assert(!b->pool.prepare);
	ck_assert(c->pool.prepare);
	ck_assert_int_eq(d->pool.acquire_timeout_ms, 3600000);
}
END_TEST

/* ---- differences ----------------------------------------------------------------------------- */

static void collect(void *arg, const char *section, const char *key, const char *from,
                    const char *to, bool restart)
{
	char **all = arg;
	char *more = xasprintf("%s[%s] %s: %s -> %s%s\n", *all, section, key, from, to,
	                       restart ? " (restart)" : "");

	free(*all);
	*all = more;
}

static const struct {
	const char *a, *b;
	const char *want;
	size_t count;
} differences[] = {
    {DB, DB, "", 0},
    {DB "[workers]\nqueue = 1024\n", DB, "", 0},
    {DB, DB "[workers]\nqueue = 3\n[http]\nthreads = 2\n",
     "[http] threads: 0 -> 2 (restart)\n[workers] queue: 1024 -> 3\n", 2},
    {DB "[http]\norigins = https://a\naccess_log = stderr\nmax_url = 4096\ndevelopment = yes\n",
     DB "[http]\norigins = https://a, https://b\n",
     "[http] origins: https://a -> https://a, https://b\n[http] max_url: 4KiB -> 8KiB\n"
     "[http] access_log: stderr -> off\n[http] development: yes -> no\n",
     4},
    {DB "statement_timeout = 90s\nprepare = no\n", DB "statement_timeout = 2m\nprepare = yes\n",
     "[database] statement_timeout: 90s -> 2m\n[database] prepare: no -> yes\n", 2},
    {DB "[auth]\nmode = none\nalgorithms = HS256\nleeway = 1m\n",
     DB "[auth]\nissuer = me\naudience = a, b\nmax_token_lifetime = 1d\n",
     "[auth] mode: none -> token (restart)\n[auth] algorithms: HS256 -> \n[auth] issuer:  -> me\n"
     "[auth] audience:  -> a, b\n[auth] leeway: 1m -> 15s\n[auth] max_token_lifetime: 0 -> 1d\n",
     6},
    {DB "[log]\nlevel = warn\n", DB "[log]\nlevel = debug\n", "[log] level: warn -> debug\n", 1},
    {"[database]\nurl = postgresql://u:hunter2@db/main\n",
     "[database]\nurl = postgresql://u:hunter2@db/other?sslpassword=hunter2\n",
     "[database] url: user=u password=*** dbname=main host=db -> user=u password=*** dbname=other "
     "host=db sslpassword=*** (restart)\n",
     1},
    {"[database]\nurl = host=db password=hunter2 dbname='a b'\n",
     "[database]\nurl = host=db password=hunter22 dbname='a b'\n",
     "[database] url: password=*** dbname='a b' host=db -> password=*** dbname='a b' host=db "
     "(restart)\n",
     1},
    {DB "[endpoint a]\ntimeout = 1s\n[endpoint c]\ntimeout = 3s\n[endpoint d]\ntimeout = 4s\n",
     DB "[endpoint d]\ntimeout = 4s\n[endpoint c]\ntimeout = 5s\n[endpoint b]\ntimeout = 2s\n",
     "[endpoint a] timeout: 1s -> unset\n[endpoint b] timeout: unset -> 2s\n"
     "[endpoint c] timeout: 3s -> 5s\n",
     3},
    {DB, DB "[cache]\ncapacity = 128MiB\nshards = 8\ncompression = br\nttl = 0\n",
     "[cache] capacity: 256MiB -> 128MiB\n[cache] shards: 16 -> 8 (restart)\n"
     "[cache] ttl: 10m -> 0\n[cache] compression: gzip,br -> br\n",
     4},
    {DB "[endpoint a]\nttl = 0\nswr = 1s\n", DB "[endpoint a]\nswr = 1s\nmax_stale = 2s\n",
     "[endpoint a] ttl: 0 -> unset\n[endpoint a] max_stale: unset -> 2s\n", 2},
    {DB "[endpoint a]\n", DB, "", 0},
    {DB "[endpoint a]\n", DB "[endpoint a]\n", "", 0},
    {DB "[endpoint a]\ntimeout = 1s\n", DB "[endpoint a]\n", "[endpoint a] timeout: 1s -> unset\n",
     1},
};

START_TEST(differences_are_told_in_order)
{
	_cleanup_config_ struct config *a = good(differences[_i].a), *b = good(differences[_i].b);
	_cleanup_free_ char *all = xstrdup("");

	ck_assert_uint_eq(config_diff(a, b, collect, &all), differences[_i].count);
	ck_assert_str_eq(all, differences[_i].want);
	ck_assert_uint_eq(config_diff(b, a, NULL, NULL), differences[_i].count);
	ck_assert_uint_eq(config_diff(a, a, NULL, NULL), 0);
}
END_TEST

START_TEST(what_needs_a_restart_is_kept)
{
	_cleanup_config_ struct config *running =
	    good("[http]\nlisten = 127.0.0.1:1\nthreads = 3\n[database]\nurl = host=a\n");
	_cleanup_config_ struct config *c = good("[http]\nthreads = 4\nmax_url = 4096\n[database]\n"
	                                         "url = host=b\npool_max = 3\n");
	_cleanup_free_ char *all = xstrdup("");
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_int_eq(config_keep_restart(c, running, errs), 0);
	ck_assert_str_eq(c->pool.url, "host=a");
	ck_assert_uint_eq(c->http.threads, 3);
	config_diff(running, c, collect, &all);
	ck_assert_str_eq(all, "[http] max_url: 8KiB -> 4KiB\n[database] pool_max: 8 -> 3\n");
}
END_TEST

/* What max_entry becomes when the shards stay those of the running server. */
static const struct {
	const char *running, *now;
	int64_t want;
} kept_shards[] = {
    {"shards = 64\n", "", 1 << 20},
    {"shards = 64\n", "max_entry = 4MiB\n", 1 << 20},
    {"shards = 64\n", "max_entry = 1KiB\n", 1 << 10},
    {"shards = 8\n", "", 8 << 20},
    {"shards = 8\n", "max_entry = 4MiB\n", 4 << 20},
};

START_TEST(max_entry_follows_shards_that_are_kept)
{
	_cleanup_free_ char *a = xasprintf(DB "[cache]\n%s", kept_shards[_i].running);
	_cleanup_free_ char *b = xasprintf(DB "[cache]\n%s", kept_shards[_i].now);
	_cleanup_config_ struct config *running = good(a), *c = good(b);
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_int_eq(config_keep_restart(c, running, errs), 0);
	ck_assert_uint_eq(c->cache.shards, running->cache.shards);
	ck_assert_int_eq(c->cache.max_entry, kept_shards[_i].want);
}
END_TEST

START_TEST(capacity_too_small_for_the_shards_that_run_is_refused)
{
	_cleanup_config_ struct config *running = good(DB "[cache]\nshards = 1024\n");
	_cleanup_config_ struct config *c = good(DB "[cache]\nshards = 1\ncapacity = 1MiB\n");
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_int_eq(config_keep_restart(c, running, errs), -EINVAL);
	ck_assert_str_eq(errors_text(errs, 0),
	                 PLACE ": [cache] capacity (1MiB) is too little for 1024 shards, which "
	                       "need 64KiB each: write at least 64MiB, or fewer shards");
}
END_TEST

START_TEST(free_takes_null)
{
	struct config *c = NULL;

	config_free(&c);
}
END_TEST

/* ---- what is printed ------------------------------------------------------------------------- */

static char *printed(void (*print)(FILE *))
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	print(f);
	fclose(f);
	return text;
}

/* The file is what the generator prints; with UPDATE in the environment it is made so. */
static void compare_with_file(void (*print)(FILE *), const char *name)
{
	const char *root = getenv("SOURCE_ROOT");
	_cleanup_free_ char *path = NULL, *want = printed(print), *is = NULL;
	_cleanup_fclose_ FILE *f = NULL;
	size_t n = strlen(want);

	ck_assert_msg(root != NULL, "set SOURCE_ROOT to the source tree");
	path = xasprintf("%s/%s", root, name);
	f = fopen(path, getenv("UPDATE") ? "w+" : "r");
	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	if (getenv("UPDATE")) {
		ck_assert_uint_eq(fwrite(want, 1, n, f), n);
		rewind(f);
	}
	is = xcalloc(n + 2, 1);
	ck_assert_msg(fread(is, 1, n + 1, f) == n && strcmp(is, want) == 0,
	              "%s is not what src/config/print.c prints; run this test with UPDATE=1",
	              name);
}

START_TEST(sample_file_is_what_is_printed)
{
	compare_with_file(config_print_sample, "config/provost.ini");
}
END_TEST

START_TEST(documentation_is_what_is_printed)
{
	compare_with_file(config_print_markdown, "docs/CONFIGURATION.md");
}
END_TEST

START_TEST(sample_changes_nothing)
{
	static const char *const env[] = {"DATABASE_URL=postgresql://db", NULL};
	_cleanup_free_ char *sample = printed(config_print_sample);
	_cleanup_config_ struct config *a = good_env(sample, env), *b = good_env("", env);

	ck_assert_uint_eq(config_diff(a, b, NULL, NULL), 0);
}
END_TEST

/* Every `;key = value` of the sample brought to life says what holds anyway. */
START_TEST(sample_values_are_the_defaults)
{
	static const char *const env[] = {"DATABASE_URL=postgresql://db",
	                                  "PROVOST_DATABASE_LISTEN_URL=postgresql://db", NULL};
	_cleanup_free_ char *sample = printed(config_print_sample);
	_cleanup_config_ struct config *a = NULL, *b = good_env("", env);

	for (char *line = sample; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (line[0] == ';' && line[1] != ' ')
			line[0] = ' ';
	}
	a = good_env(sample, env);
	ck_assert_uint_eq(a->overrides, 1);
	ck_assert_int_eq(a->override[0].timeout_ms, 30000);
	a->override[0].timeout_ms = -1;
	ck_assert_int_eq(a->override[0].freshness.max_stale_ms, 2000);
	a->override[0].freshness = (struct freshness){-1, -1, -1, -1};
	ck_assert_uint_eq(config_diff(a, b, NULL, NULL), 0);
}
END_TEST

START_TEST(help_fits_a_terminal_and_names_every_key)
{
	_cleanup_free_ char *help = printed(config_print_help),
	                    *markdown = printed(config_print_markdown);
	_cleanup_free_ char *sample = printed(config_print_sample);

	for (const char *line = help; *line; line += strcspn(line, "\n") + 1)
		ck_assert_uint_le(strcspn(line, "\n"), 80);
	for (const char *line = sample; *line; line += strcspn(line, "\n") + 1) {
		size_t n = line[0] == ';' && line[1] != ' ' ? strcspn(line, " ") : 0;
		_cleanup_free_ char *in_help = NULL, *in_markdown = NULL;

		if (n == 0 || line[1] == '[')
			continue;
		in_help = xasprintf("\n  %.*s\n", (int)n - 1, line + 1);
		in_markdown = xasprintf("\n#### `%.*s`\n", (int)n - 1, line + 1);
		ck_assert_msg(strstr(help, in_help) != NULL, "%s", in_help);
		ck_assert_msg(strstr(markdown, in_markdown) != NULL, "%s", in_markdown);
	}
}
END_TEST

static Suite *config_suite(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("good");

	tcase_add_test(t, defaults_hold_without_a_file);
	tcase_add_test(t, every_key_is_read);
	tcase_add_test(t, every_key_of_auth_is_read);
	tcase_add_test(t, mode_none_is_for_this_machine);
	tcase_add_loop_test(t, spellings_mean_the_same, 0, ELEMENTSOF(spellings));
	tcase_add_test(t, switches_have_many_spellings);
	tcase_add_test(t, long_lines_are_not_cut);
	tcase_add_test(t, long_endpoint_names_are_not_cut);
	tcase_add_test(t, default_of_pool_min_gives_way_to_pool_max);
	tcase_add_loop_test(t, codings_are_read, 0, ELEMENTSOF(codings));
	tcase_add_loop_test(t, max_entry_follows_unless_set, 0, ELEMENTSOF(largest));
	suite_add_tcase(s, t);

	t = tcase_create("broken");
	tcase_add_loop_test(t, broken_file_says_what_to_do, 0, ELEMENTSOF(broken));
	tcase_add_test(t, all_errors_are_told_at_once);
	tcase_add_test(t, line_that_is_too_long_is_refused);
	tcase_add_test(t, nul_byte_is_refused);
	tcase_add_test(t, long_value_is_shown_in_part);
	tcase_add_test(t, errors_are_bounded);
	tcase_add_test(t, every_prefix_of_a_file_is_survived);
	tcase_add_test(t, file_that_is_not_there_is_an_error);
	tcase_add_test(t, folder_is_no_file);
	tcase_add_test(t, endless_file_is_an_error);
	suite_add_tcase(s, t);

	t = tcase_create("origins");
	tcase_add_loop_test(t, origins_are_normalised_or_refused, 0, ELEMENTSOF(origins));
	tcase_add_test(t, origins_are_bounded);
	suite_add_tcase(s, t);

	t = tcase_create("environment");
	tcase_add_test(t, environment_comes_before_the_file);
	tcase_add_test(t, empty_variable_counts_as_unset);
	tcase_add_test(t, bad_variable_is_named);
	tcase_add_test(t, contradiction_by_variable_is_named);
	tcase_add_loop_test(t, url_has_its_own_precedence, 0, ELEMENTSOF(urls_from));
	tcase_add_test(t, bad_url_names_where_it_came_from);
	tcase_add_test(t, secrets_are_taken_from_the_environment_and_wiped_there);
	tcase_add_test(t, nextauths_own_variable_is_known);
	tcase_add_test(t, development_is_not_turned_on_for_others);
	tcase_add_test(t, unknown_variables_are_warned_of_and_ignored);
	suite_add_tcase(s, t);

	t = tcase_create("url");
	tcase_add_loop_test(t, urls_are_made_libpqs, 0, ELEMENTSOF(urls));
	tcase_add_loop_test(t, bad_urls_say_what_to_do_and_no_password, 0, ELEMENTSOF(bad_urls));
	tcase_add_test(t, url_settings_hold_where_nothing_else_is_said);
	tcase_add_test(t, listen_url_is_understood_like_url);
	tcase_add_test(t, url_settings_give_way_to_the_file);
	tcase_add_test(t, url_settings_give_way_to_the_environment);
	tcase_add_test(t, url_settings_of_others_than_prisma);
	suite_add_tcase(s, t);

	t = tcase_create("diff");
	tcase_add_loop_test(t, differences_are_told_in_order, 0, ELEMENTSOF(differences));
	tcase_add_test(t, free_takes_null);
	tcase_add_test(t, what_needs_a_restart_is_kept);
	tcase_add_loop_test(t, max_entry_follows_shards_that_are_kept, 0, ELEMENTSOF(kept_shards));
	tcase_add_test(t, capacity_too_small_for_the_shards_that_run_is_refused);
	suite_add_tcase(s, t);

	t = tcase_create("print");
	tcase_add_test(t, sample_file_is_what_is_printed);
	tcase_add_test(t, documentation_is_what_is_printed);
	tcase_add_test(t, sample_changes_nothing);
	tcase_add_test(t, sample_values_are_the_defaults);
	tcase_add_test(t, help_fits_a_terminal_and_names_every_key);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(config_suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
