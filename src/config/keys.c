#include "keys.h"

#include <string.h>
#include <strings.h>

#include "limits.h"
#include "provost/units.h"

#define CONFIG(member)   offsetof(struct config, member)
#define OVERRIDE(member) offsetof(struct endpoint_override, member)

#define MS     INT64_C(1)
#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define YEAR   (365 * DAY)
#define KIB    INT64_C(1024)
#define MIB    (1024 * KIB)
#define GIB    (1024 * MIB)

/* clang-format off */
const struct key config_keys[] = {
	{"http", "listen", KEY_LISTEN, .restart = true,
	 .fallback = "127.0.0.1:8080", .offset = CONFIG(http.listen),
	 .doc = "The address and port to serve on. Port 0 takes any free port. With mode = none in [auth], and "
	        "with development = yes, it must be an address of this machine alone: 127.0.0.0/8, ::1 or "
	        "localhost."},
	{"http", "threads", KEY_INTEGER, .restart = true, .min = 1, .max = 64, .zero = "one per core",
	 .fallback = "0", .offset = CONFIG(http.threads),
	 .doc = "Threads that read requests and write answers. They never wait for the database, so more "
	        "than there are cores gain nothing."},
	{"http", "max_connections", KEY_INTEGER, .restart = true, .min = 1, .max = 100000,
	 .fallback = "1000", .offset = CONFIG(http.max_connections),
	 .doc = "Connections of clients open at once; further ones are answered 503 and closed."},
	{"http", "origins", KEY_ORIGINS,
	 .fallback = "", .offset = CONFIG(http.origins),
	 .doc = "Web pages of which other origins may call the API, load the files of /client/ (CORS) and "
	        "open WebSockets, separated by commas. Empty: only pages of the server's own origin."},
	{"http", "max_url", KEY_SIZE, .min = 256, .max = 32 * KIB,
	 .fallback = "8KiB", .offset = CONFIG(http.max_url),
	 .doc = "The longest request target, path and query together; longer ones are answered 414."},
	{"http", "max_body", KEY_SIZE, .min = 1, .max = 64 * MIB,
	 .fallback = "1MiB", .offset = CONFIG(http.max_body),
	 .doc = "The largest request body; larger ones are answered 413."},
	{"http", "idle_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "1m", .offset = CONFIG(http.idle_timeout_ms),
	 .doc = "How long a connection may idle: between two requests, while it sends a body, while it "
	        "takes nothing of an answer."},
	{"http", "header_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "10s", .offset = CONFIG(http.header_timeout_ms),
	 .doc = "How long a client may take to send the head of a request."},
	{"http", "drain_delay", KEY_DURATION, .min = 1 * MS, .max = HOUR, .zero = "none",
	 .fallback = "0", .offset = CONFIG(http.drain_delay_ms),
	 .doc = "On SIGTERM, how long to go on accepting connections while /readyz already answers 503: "
	        "the time a load balancer needs to notice."},
	{"http", "shutdown_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "10s", .offset = CONFIG(http.shutdown_timeout_ms),
	 .doc = "On SIGTERM, how long requests that have begun may take to complete, after drain_delay."},
	{"http", "access_log", KEY_TARGET,
	 .fallback = "off", .offset = CONFIG(http.access_log),
	 .doc = "Where a line per request is written. A file is appended to, and opened anew on reload, "
	        "so that a rotated one is let go."},
	{"http", "development", KEY_BOOL,
	 .fallback = "no", .offset = CONFIG(http.development),
	 .doc = "Whether error answers carry the database's own words, values included. Only while "
	        "listening on an address of this machine alone."},

	{"workers", "threads", KEY_INTEGER, .min = 1, .max = 256,
	 .fallback = "8", .offset = CONFIG(engine.threads),
	 .doc = "Threads that run statements, each on a connection borrowed from the pool: more than "
	        "pool_max only wait for one."},
	{"workers", "queue", KEY_INTEGER, .min = 1, .max = 1000000,
	 .fallback = "1024", .offset = CONFIG(engine.queue),
	 .doc = "Statements that may wait for a worker; past it requests are answered 503 at once."},
	{"workers", "queue_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "2s", .offset = CONFIG(engine.queue_timeout_ms),
	 .doc = "How long a statement may wait for a worker before its request is answered 503."},

	{"cache", "capacity", KEY_SIZE, .min = CACHE_SHARE_MIN, .max = 1024 * GIB,
	 .fallback = "256MiB", .offset = CONFIG(cache.capacity),
	 .doc = "Memory for stored answers, all of it counted: bodies, compressed forms, keys, tables. When it "
	        "is full, what has not been asked for the longest makes room. At least 64KiB for each "
	        "shard."},
	{"cache", "shards", KEY_POWER, .restart = true, .min = 1, .max = CACHE_SHARDS_MAX,
	 .fallback = "16", .offset = CONFIG(cache.shards),
	 .doc = "Parts that the cache is divided into, each with a lock and an equal share of capacity. A few "
	        "times as many as there are threads of [http] keep these from waiting for each other."},
	{"cache", "policy", KEY_CHOICE, .choices = "lru",
	 .fallback = "lru", .offset = CONFIG(cache.policy),
	 .doc = "What makes room when the cache is full. lru: what was used the longest time ago."},
	{"cache", "ttl", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "never: the database is asked each time",
	 .fallback = "10m", .offset = CONFIG(freshness.ttl_ms),
	 .doc = "How long a stored answer is fresh, unless a change in the database ends that sooner. An "
	        "endpoint's @cache comes before this, and [endpoint NAME] before both; the same holds for swr "
	        "and stale_if_error."},
	{"cache", "swr", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "not at all",
	 .fallback = "0", .offset = CONFIG(freshness.swr_ms),
	 .doc = "How long past its ttl an answer is still served, marked as stale, while one refresh runs "
	        "(stale-while-revalidate). Never after a change in the database."},
	{"cache", "stale_if_error", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "not at all",
	 .fallback = "1h", .offset = CONFIG(freshness.stale_if_error_ms),
	 .doc = "How long past its ttl an answer is still served, marked as stale, to a request for which the "
	        "database has failed or cannot be reached."},
	{"cache", "max_entry", KEY_SIZE, .min = KIB, .max = GIB,
	 .example = "4MiB", .unset = "8MiB, or a fourth of a shard's share (capacity / shards) where that is less",
	 .offset = CONFIG(cache.max_entry),
	 .doc = "The largest answer that is stored, with its compressed forms. At most a fourth of a shard's "
	        "share, so that one answer does not displace all others there."},
	{"cache", "negative_ttl", KEY_DURATION, .min = 1 * MS, .max = HOUR, .zero = "never stored",
	 .fallback = "5s", .offset = CONFIG(cache.negative_ttl_ms),
	 .doc = "How long it is remembered that there is no such thing (404), unless a change in the database "
	        "ends that sooner."},
	{"cache", "compression", KEY_CODINGS,
	 .fallback = "gzip,br", .offset = CONFIG(compression),
	 .doc = "The compressed forms in which stored answers are offered. Each is made once, by a worker, "
	        "after the first request that accepts it."},

	{"database", "url", KEY_URL, .restart = true,
	 .example = "postgresql://user:password@127.0.0.1:5432/database",
	 .unset = "none; it must be set here or in the environment",
	 .offset = CONFIG(pool.url),
	 .doc = "The database: a connection URL or keyword string as libpq takes it, or the URL of an ORM. "
	        "DATABASE_URL in the environment comes before the file, PROVOST_DATABASE_URL before "
	        "both. One host only: what chooses among several servers is a proxy in front of them."},
	{"database", "pool_min", KEY_INTEGER, .min = 0, .max = 1000,
	 .fallback = "2", .offset = CONFIG(pool.min),
	 .doc = "Connections kept open even when idle. Unless set, never more than pool_max."},
	{"database", "pool_max", KEY_INTEGER, .min = 1, .max = 1000,
	 .fallback = "8", .offset = CONFIG(pool.max),
	 .doc = "Connections open at most."},
	{"database", "acquire_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "1s", .offset = CONFIG(pool.acquire_timeout_ms),
	 .doc = "How long a statement may wait for a connection before its request is answered 503."},
	{"database", "statement_timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "10s", .offset = CONFIG(engine.statement_timeout_ms),
	 .doc = "How long a statement may run before it is cancelled and its request answered 504, unless "
	        "its endpoint says otherwise."},
	{"database", "max_lifetime", KEY_DURATION, .min = SECOND, .max = 7 * DAY, .zero = "no limit",
	 .fallback = "30m", .offset = CONFIG(pool.max_lifetime_ms),
	 .doc = "The age at which a connection is replaced, up to a tenth earlier so that not all go at "
	        "once."},
	{"database", "prepare", KEY_BOOL,
	 .fallback = "yes", .offset = CONFIG(pool.prepare),
	 .doc = "Whether statements stay prepared on their connections. Write no behind a transaction "
	        "pooler such as PgBouncer."},
	{"database", "listen_url", KEY_URL, .restart = true,
	 .example = "postgresql://user:password@127.0.0.1:5432/database",
	 .unset = "url",
	 .offset = CONFIG(listener.url),
	 .doc = "How to reach the same database directly, for the one connection that listens to changes; needed "
	        "where url leads to a pooler, through which changes cannot be heard."},
	{"database", "heartbeat", KEY_DURATION, .min = 50 * MS, .max = 10 * SECOND,
	 .fallback = "300ms", .offset = CONFIG(listener.heartbeat_ms),
	 .doc = "How often it is made sure that changes are heard. When a heartbeat is not back after twice as long, "
	        "nothing is served as fresh, and nothing stored, until one is."},
	{"database", "sync_timeout", KEY_DURATION, .min = 10 * MS, .max = MINUTE,
	 .fallback = "2s", .offset = CONFIG(listener.sync_timeout_ms),
	 .doc = "How long the answer to a write may wait until the write has been heard of. After that "
	        "everything stored is invalidated instead."},

	{"auth", "mode", KEY_ENUM, .restart = true, .choices = "token, none",
	 .fallback = "token", .offset = CONFIG(auth.mode),
	 .doc = "token: callers must prove who they are, by an API key (`provost key new`), a JWT or the cookie of a "
	        "NextAuth session. none: every caller is an administrator; only while listening on an address of "
	        "this machine alone."},
	{"auth", "algorithms", KEY_LIST, .choices = "HS256, RS256, ES256",
	 .fallback = "", .offset = CONFIG(auth.algorithms),
	 .doc = "What JWTs may be signed with, separated by commas; a token's own word for it only counts if it "
	        "is listed here. Empty: no JWT is accepted. Each needs a key (jwt_secret_file, key_files, "
	        "jwks_file), and issuer and audience must be set."},
	{"auth", "jwt_secret_file", KEY_LIST, .each = "paths of files",
	 .fallback = "", .offset = CONFIG(auth.jwt_secret.files),
	 .doc = "Files with the secret of HS256, one line of at least 32 bytes; several while one is being "
	        "replaced. PROVOST_AUTH_JWT_SECRET in the environment holds a secret itself, and comes first. "
	        "This file and the keys below are read anew when they change."},
	{"auth", "key_files", KEY_LIST, .each = "paths of files, each as PATH or KID=PATH,",
	 .fallback = "", .offset = CONFIG(auth.key_files),
	 .doc = "Public keys of RS256 and ES256, in PEM format or as a JWK, one a file. KID is what tokens name "
	        "the key by."},
	{"auth", "jwks_file", KEY_TEXT, .each = "the path of a file",
	 .fallback = "", .offset = CONFIG(auth.jwks_file),
	 .doc = "A JSON Web Key Set, as identity providers publish it, kept as a file."},
	{"auth", "issuer", KEY_TEXT, .each = "a text, or *",
	 .fallback = "", .offset = CONFIG(auth.issuer),
	 .doc = "What JWTs must have as iss; `*` accepts any issuer that has the key."},
	{"auth", "audience", KEY_LIST, .each = "texts, or *,",
	 .fallback = "", .offset = CONFIG(auth.audience),
	 .doc = "One of these JWTs must have in aud; `*` accepts tokens made for other services, too."},
	{"auth", "subject_claim", KEY_TEXT, .each = "the name of a claim, or a path such as user.id",
	 .fallback = "sub", .offset = CONFIG(auth.jwt_claims.subject),
	 .doc = "The claim of a JWT that says who the caller is."},
	{"auth", "roles_claim", KEY_TEXT, .each = "the name of a claim, or a path such as realm_access.roles",
	 .fallback = "roles", .offset = CONFIG(auth.jwt_claims.roles),
	 .doc = "The claim of a JWT that has the caller's roles: an array, or a text with blanks or commas "
	        "between them."},
	{"auth", "nextauth_secret_file", KEY_LIST, .each = "paths of files",
	 .fallback = "", .offset = CONFIG(auth.nextauth_secret.files),
	 .doc = "Files with the secret that NextAuth (version 4) makes its session cookies with; several while one "
	        "is being replaced. PROVOST_AUTH_NEXTAUTH_SECRET, or NEXTAUTH_SECRET, in the environment holds a "
	        "secret itself, and comes first. Without a secret no cookie is accepted."},
	{"auth", "cookie_subject_claim", KEY_TEXT, .each = "the name of a claim, or a path such as user.id",
	 .fallback = "sub", .offset = CONFIG(auth.cookie_claims.subject),
	 .doc = "The claim of a NextAuth session that says who the caller is."},
	{"auth", "cookie_roles_claim", KEY_TEXT, .each = "the name of a claim, or a path such as user.role",
	 .fallback = "role", .offset = CONFIG(auth.cookie_claims.roles),
	 .doc = "The claim of a NextAuth session that has the caller's roles: an array, or a text with commas "
	        "between them."},
	{"auth", "leeway", KEY_SECONDS, .min = SECOND, .max = 5 * MINUTE, .zero = "none",
	 .fallback = "15s", .offset = CONFIG(auth.leeway_s),
	 .doc = "By how much the clocks of whoever makes tokens and of this machine may differ, in whole seconds."},
	{"auth", "max_token_lifetime", KEY_SECONDS, .min = SECOND, .max = 10 * YEAR, .zero = "no bound",
	 .fallback = "0", .offset = CONFIG(auth.max_lifetime_s),
	 .doc = "A JWT or session that is good for longer than this, in whole seconds, is refused."},

	{"websocket", "max_clients", KEY_INTEGER, .min = 1, .max = 1000000,
	 .fallback = "10000", .offset = CONFIG(hub.max_clients),
	 .doc = "WebSockets open at once; further ones are answered 503. An eighth of them may be open before they "
	        "have said who they are."},
	{"websocket", "max_per_user", KEY_INTEGER, .min = 1, .max = 1000000, .zero = "no bound",
	 .fallback = "4", .offset = CONFIG(hub.max_per_user),
	 .doc = "WebSockets of one user: one per device, as the browser client shares one among tabs. API keys are "
	        "exempt."},
	{"websocket", "per_user_policy", KEY_ENUM, .choices = "replace, reject",
	 .fallback = "replace", .offset = CONFIG(hub.per_user_policy),
	 .doc = "What happens to one more. replace: the user's oldest is closed with 4001; reject: the new one is "
	        "closed with 4429."},
	{"websocket", "max_per_address", KEY_INTEGER, .min = 1, .max = 1000000, .zero = "no bound",
	 .fallback = "0", .offset = CONFIG(hub.max_per_address),
	 .doc = "WebSockets from one address; one more is closed with 4429. Behind a proxy all come from the "
	        "proxy's."},
	{"websocket", "tick", KEY_DURATION, .min = 1 * MS, .max = SECOND, .zero = "never gathered",
	 .fallback = "1ms", .offset = CONFIG(hub.tick_ms),
	 .doc = "Messages that come within this time of the last send are gathered and sent together. After a "
	        "longer pause they are sent at once."},
	{"websocket", "backlog", KEY_SIZE, .min = 4 * KIB, .max = GIB,
	 .fallback = "1MiB", .offset = CONFIG(hub.backlog),
	 .doc = "What may wait for one client. A client that falls behind further loses what waits, and is told to "
	        "look at everything anew (resync)."},
	{"websocket", "stall_timeout", KEY_DURATION, .min = 100 * MS, .max = HOUR,
	 .fallback = "30s", .offset = CONFIG(hub.stall_timeout_ms),
	 .doc = "How long a client may take nothing of what waits for it before it is closed with 1013."},
	{"websocket", "ping_interval", KEY_DURATION, .min = 100 * MS, .max = HOUR,
	 .fallback = "25s", .offset = CONFIG(hub.ping_interval_ms),
	 .doc = "How often each client is sent a ping, give or take a tenth. One that is not heard between two "
	        "pings is dropped."},
	{"websocket", "auth_timeout", KEY_DURATION, .min = 100 * MS, .max = HOUR,
	 .fallback = "5s", .offset = CONFIG(hub.auth_timeout_ms),
	 .doc = "How long a client that opened without credentials may take to say who it is before it is closed "
	        "with 4408."},
	{"websocket", "resume_window", KEY_DURATION, .min = SECOND, .max = HOUR, .zero = "no resume",
	 .fallback = "2m", .offset = CONFIG(hub.resume_window_ms),
	 .doc = "How long after a connection was lost its rooms are kept, and what was said in them, for the client "
	        "to resume."},
	{"websocket", "refresh_interval", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .fallback = "250ms", .offset = CONFIG(hub.refresh_interval_ms),
	 .doc = "How often a path that is watched (a live endpoint) is read anew at most, however often what it "
	        "shows changes. The first change after a pause shows at once."},
	{"websocket", "outbox_age", KEY_DURATION, .min = SECOND, .max = YEAR,
	 .fallback = "7d", .offset = CONFIG(courier.outbox_age_ms),
	 .doc = "How long what SQL publishes for a user (provost.publish) is kept when no client of the user "
	        "acknowledges it."},
	{"websocket", "max_message", KEY_SIZE, .min = 4 * KIB, .max = 16 * MIB,
	 .fallback = "64KiB", .offset = CONFIG(hub.max_message),
	 .doc = "The largest message that a client may send; one that sends more is closed with 1009."},

	{"rooms", "NAME", KEY_ROOMS,
	 .unset = "admin", .example = "admin, editor", .offset = CONFIG(hub),
	 .doc = "Who may join the room of that name, which has 1 to 64 of A-Z a-z 0-9 _ . -; rooms that are not "
	        "here are for the role admin."},

	{"endpoint", "timeout", KEY_DURATION, .min = 10 * MS, .max = HOUR,
	 .example = "30s", .unset = "what the endpoint's @timeout says, else statement_timeout",
	 .offset = OVERRIDE(timeout_ms),
	 .doc = "How long the endpoint's statement may run before it is cancelled and its request answered "
	        "504."},
	{"endpoint", "ttl", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "never: the database is asked each time",
	 .example = "1m", .unset = "what the endpoint's @cache says, else ttl of [cache]",
	 .offset = OVERRIDE(freshness.ttl_ms),
	 .doc = "How long a stored answer of the endpoint is fresh. An endpoint whose file says @cache off "
	        "stays uncached."},
	{"endpoint", "swr", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "not at all",
	 .example = "30s", .unset = "what the endpoint's @cache says, else swr of [cache]",
	 .offset = OVERRIDE(freshness.swr_ms),
	 .doc = "How long past its ttl an answer is still served, marked as stale, while one refresh runs."},
	{"endpoint", "max_stale", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "not at all",
	 .example = "2s", .unset = "what the endpoint's @cache says, else 0",
	 .offset = OVERRIDE(freshness.max_stale_ms),
	 .doc = "After a change in the database, how old an answer may be to be served all the same, marked as "
	        "stale: for tables that are written many times a second."},
	{"endpoint", "stale_if_error", KEY_DURATION, .min = 1 * MS, .max = YEAR, .zero = "not at all",
	 .example = "1h", .unset = "what the endpoint's @cache says, else stale_if_error of [cache]",
	 .offset = OVERRIDE(freshness.stale_if_error_ms),
	 .doc = "How long past its ttl an answer is still served, marked as stale, to a request for which the "
	        "database has failed."},

	{"log", "level", KEY_CHOICE, .choices = "error, warn, info, debug",
	 .fallback = "info", .offset = CONFIG(log.level),
	 .doc = "The least important lines that are logged to stderr. error: someone must act; warn: the "
	        "service is degraded; info: what a healthy run has to say; debug: everything."},
};
/* clang-format on */
const size_t config_keys_count = ELEMENTSOF(config_keys);

/* ---- finding ------------------------------------------------------------------------- */

const struct key *key_find(const char *section, const char *name)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		const struct key *k = &config_keys[i];

		if (strcmp(k->section, section) == 0 && strcmp(k->name, name) == 0)
			return k;
	}
	return NULL;
}

size_t key_index(const struct key *k)
{
	return (size_t)(k - config_keys);
}

bool key_is_endpoint(const struct key *k)
{
	return strcmp(k->section, "endpoint") == 0;
}

bool key_has_variable(const struct key *k)
{
	return !key_is_endpoint(k) && k->type != KEY_ROOMS;
}

const char *key_section(const char *name)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (strcmp(config_keys[i].section, name) == 0)
			return config_keys[i].section;
	}
	return NULL;
}

const char *key_section_of(const char *name)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (strcmp(config_keys[i].name, name) == 0)
			return config_keys[i].section;
	}
	return NULL;
}

enum { NAME_MAX_COMPARED = 40 };

/* Levenshtein's distance, without regard to case. Long names are near nothing. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_COMPARED + 1];
	size_t an = strlen(a), bn = strlen(b);

	if (an > NAME_MAX_COMPARED || bn > NAME_MAX_COMPARED)
		return SIZE_MAX;
	for (size_t j = 0; j <= bn; j++)
		row[j] = j;
	for (size_t i = 1; i <= an; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= bn; j++) {
			size_t above = row[j];
			bool same = strncasecmp(&a[i - 1], &b[j - 1], 1) == 0;

			row[j] = MIN(MIN(above, row[j - 1]) + 1, diagonal + (same ? 0 : 1));
			diagonal = above;
		}
	}
	return row[bn];
}

/* A guess that is mostly different letters helps nobody. */
static bool is_near(const char *given, size_t d)
{
	return d <= 1 + strlen(given) / 4;
}

const char *key_nearest(const char *section, const char *name)
{
	const char *best = NULL;
	size_t best_d = SIZE_MAX;

	for (size_t i = 0; i < config_keys_count; i++) {
		size_t d = distance(name, config_keys[i].name);

		if (strcmp(config_keys[i].section, section) == 0 && d < best_d) {
			best = config_keys[i].name;
			best_d = d;
		}
	}
	return best && is_near(name, best_d) ? best : NULL;
}

const char *key_nearest_section(const char *section)
{
	const char *best = NULL;
	size_t best_d = SIZE_MAX;

	for (size_t i = 0; i < config_keys_count; i++) {
		size_t d = distance(section, config_keys[i].section);

		if (d < best_d) {
			best = config_keys[i].section;
			best_d = d;
		}
	}
	return best && is_near(section, best_d) ? best : NULL;
}

void key_variable(const struct key *k, char out[KEY_TEXT_MAX])
{
	int n = snprintf(out, KEY_TEXT_MAX, "PROVOST_%s_%s", k->section, k->name);

	ALWAYS(n > 0 && n < KEY_TEXT_MAX);
	for (char *p = out; *p; p++) {
		if (*p >= 'a' && *p <= 'z')
			*p = (char)(*p - 'a' + 'A');
	}
}

/* ---- what a key accepts -------------------------------------------------------------- */

void key_format_number(const struct key *k, int64_t v, char out[KEY_TEXT_MAX])
{
	if (k->type == KEY_DURATION || k->type == KEY_SECONDS)
		units_format_duration(v, out, KEY_TEXT_MAX);
	else if (k->type == KEY_SIZE)
		units_format_size(v, out, KEY_TEXT_MAX);
	else
		snprintf(out, KEY_TEXT_MAX, "%lld", (long long)v);
}

static void add_bounds(const struct key *k, struct buf *out)
{
	char min[KEY_TEXT_MAX], max[KEY_TEXT_MAX];

	key_format_number(k, k->min, min);
	key_format_number(k, k->max, max);
	buf_addf(out, " from %s to %s", min, max);
	if (k->zero)
		buf_addf(out, ", or 0 (%s)", k->zero);
}

void key_accepts(const struct key *k, struct buf *out)
{
	switch (k->type) {
	case KEY_BOOL:
		buf_adds(out, "yes or no");
		break;
	case KEY_INTEGER:
		buf_adds(out, "a whole number");
		add_bounds(k, out);
		break;
	case KEY_POWER:
		buf_adds(out, "a power of two");
		add_bounds(k, out);
		break;
	case KEY_SIZE:
		buf_adds(out, "a size (4096, 64KiB, 16MiB)");
		add_bounds(k, out);
		break;
	case KEY_DURATION:
		buf_adds(out, "a duration (500ms, 10s, 5m, 1h)");
		add_bounds(k, out);
		break;
	case KEY_SECONDS:
		buf_adds(out, "a duration in whole seconds (10s, 5m, 1h)");
		add_bounds(k, out);
		break;
	case KEY_TEXT:
		buf_adds(out, k->each);
		break;
	case KEY_LIST:
		buf_addf(out, "%s separated by commas", k->choices ? k->choices : k->each);
		break;
	case KEY_ENUM:
	case KEY_CHOICE:
		buf_addf(out, "%s%s", strchr(k->choices, ',') ? "one of " : "", k->choices);
		break;
	case KEY_LISTEN:
		buf_adds(out, "an address with a port (127.0.0.1:8080, [::1]:8080)");
		break;
	case KEY_ORIGINS:
		buf_adds(out, "origins (https://admin.example.org) separated by commas");
		break;
	case KEY_TARGET:
		buf_adds(out, "off, stderr, or the path of a file, with a / in it");
		break;
	case KEY_CODINGS:
		buf_adds(out, "gzip, br, both (gzip,br), or off");
		break;
	case KEY_ROOMS:
		buf_adds(out, "roles separated by commas");
		break;
	case KEY_URL:
		buf_adds(
		    out,
		    "a connection URL (postgresql://user:password@host:port/database) or keyword "
		    "string");
		break;
	}
}
