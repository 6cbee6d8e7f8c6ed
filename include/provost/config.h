/*
 * config: the ini file, its environment overrides, and the one table that describes every key.
 *
 * One row per key (src/config/keys.h: section, name, type, unit, bounds, default, live or restart,
 * a sentence) drives parsing, validation, --help-config, the commented sample and
 * docs/CONFIGURATION.md. Precedence: PROVOST_SECTION_KEY in the environment, the file, the default;
 * for [database] url also PROVOST_DATABASE_URL, then DATABASE_URL, then the file. Secrets have no
 * key: they are named as files, or stand in the environment, from which they are wiped.
 *
 * A struct config is immutable after loading and owned by main, which hands each module the options
 * struct that the module itself defines. Not thread-safe beyond that.
 */
#ifndef PROVOST_CONFIG_H
#define PROVOST_CONFIG_H

#include "provost/auth.h"
#include "provost/cache.h"
#include "provost/courier.h"
#include "provost/engine.h"
#include "provost/errors.h"
#include "provost/freshness.h"
#include "provost/http.h"
#include "provost/hub.h"
#include "provost/listener.h"
#include "provost/pool.h"

struct log_options {
	char *level; /* error, warn, info, debug */
};

/* [endpoint NAME]: what an operator sets for one endpoint; -1 where the file is silent. */
struct endpoint_override {
	char *name;
	unsigned line;
	int64_t timeout_ms;
	struct freshness freshness;
};

/* The encodings that answers are offered in. */
struct compression {
	bool gzip, br;
};

struct config {
	char *file;          /* the path it was read from, or NULL: defaults and environment only */
	char *endpoints_dir; /* `endpoints` beside the file */
	struct http_options http;
	struct engine_options engine;
	struct pool_options pool;
	struct listener_options listener; /* url: NULL where it is the pool's */
	struct cache_options cache;
	bool max_entry_is_set; /* else it follows capacity and shards */
	struct freshness
	    freshness; /* of endpoints that do not say otherwise; max_stale has no key */
	struct compression compression;
	struct auth_options auth;
	struct hub_options hub;
	struct courier_options courier; /* url: NULL, it is the listener's */
	struct log_options log;
	struct endpoint_override *override; /* by name, sorted */
	size_t overrides;
};

/* Reads `file` (NULL: no file, endpoints_dir is `endpoints` in the working directory). All that is
 * wrong is appended to `errs` with file:line (environment: the variable's name as file); NULL then.
 * Unknown PROVOST_* variables are warned of in the log and ignored. `env` is an environ-like array,
 * a parameter so that tests need not change the process's own. The values of
 * PROVOST_AUTH_JWT_SECRET, PROVOST_AUTH_NEXTAUTH_SECRET and NEXTAUTH_SECRET are overwritten in it:
 * whoever loads again gets them from the configuration that runs, by config_keep_restart. */
struct config *config_load(const char *file, char *const *env, struct errors *errs);

/* The same from memory, for tests and fuzzing; `file` only names the place. */
struct config *config_parse(const char *file, const char *text, size_t len, char *const *env,
                            struct errors *errs);

void config_free(struct config **c);
#define _cleanup_config_ _cleanup_(config_free)

/* Calls `f` once per key whose value differs, in table order. `restart` marks a key that only a
 * restart applies. Values are as the file would spell them; a secret (a URL's password) is masked.
 * Returns the number of differences. */
typedef void config_diff_fn(void *arg, const char *section, const char *key, const char *from,
                            const char *to, bool restart);
size_t config_diff(const struct config *a, const struct config *b, config_diff_fn *f, void *arg);
/* Gives `c` the values that `running` has for the keys that only a restart applies, and the secrets
 * of the environment: what holds once the rest of `c` is applied. -EINVAL, with an error, when the
 * rest contradicts them. */
int config_keep_restart(struct config *c, const struct config *running,
                        struct errors *errs) _must_check_;

/* --help-config: every key, its unit, bounds, default and meaning, for a terminal. */
void config_print_help(FILE *to);
/* The commented sample file (config/provost.ini is this, checked by a test). */
void config_print_sample(FILE *to);
/* docs/CONFIGURATION.md, checked by a test. */
void config_print_markdown(FILE *to);

#endif
