#include "provost/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "inifile.h"
#include "keys.h"
#include "limits.h"
#include "provost/log.h"
#include "rooms.h"
#include "url.h"

#define JWT_SECRET      "PROVOST_AUTH_JWT_SECRET"
#define NEXTAUTH_SECRET "PROVOST_AUTH_NEXTAUTH_SECRET"

enum {
	CONFIG_FILE_MAX = 1 << 20, /* bytes */
	OVERRIDES_MAX = 4096,
	KEYS_MAX = 96,
	SHOWN_MAX = 80, /* bytes of a value in an error */
};

/* Where a key was set; file NULL: nowhere, it has its default. */
struct place {
	const char *file;
	unsigned line;
};

struct loader {
	struct config *config;
	const char *file;
	char *const *env;
	struct errors *errs;
	struct place place[KEYS_MAX]; /* by key_index; of the endpoint in hand for its keys */
	char variable[KEYS_MAX][KEY_TEXT_MAX]; /* names that places of the environment point to */
	const char *section; /* the one in hand; NULL: its keys have been complained about */
	bool in_section;     /* some section has begun */
	struct endpoint_override *override; /* the endpoint in hand */
	unsigned database_line;             /* of [database], 0 without */
};

/* ---- defaults ------------------------------------------------------------------------ */

static void set_defaults(struct config *c)
{
	char why[KEY_WHY_MAX];

	ALWAYS(config_keys_count <= KEYS_MAX);
	for (size_t i = 0; i < config_keys_count; i++) {
		const struct key *k = &config_keys[i];

		if (k->fallback)
			ALWAYS(key_set(k, c, k->fallback, why) == 0);
	}
}

/* ---- sections ------------------------------------------------------------------------ */

static struct endpoint_override *find_override(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->overrides; i++) {
		if (strcmp(c->override[i].name, name) == 0)
			return &c->override[i];
	}
	return NULL;
}

static void forget_endpoint_places(struct loader *l)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (key_is_endpoint(&config_keys[i]))
			l->place[i] = (struct place){0};
	}
}

static void begin_endpoint(struct loader *l, unsigned line, const char *name)
{
	struct config *c = l->config;
	const struct endpoint_override *before = find_override(c, name);

	if (!*name) {
		errors_add(l->errs, l->file, line,
		           "name the endpoint: write [endpoint courses/get], say");
		return;
	}
	if (before) {
		errors_add(l->errs, l->file, line,
		           "[endpoint %s] has begun in line %u already: put its keys there", name,
		           before->line);
		return;
	}
	if (c->overrides == OVERRIDES_MAX) {
		errors_add(l->errs, l->file, line, "there are more than %d endpoint sections",
		           OVERRIDES_MAX);
		return;
	}
	c->override = xrealloc(c->override, c->overrides + 1, sizeof(*c->override));
	l->override = &c->override[c->overrides++];
	*l->override = (struct endpoint_override){
	    .name = xstrdup(name),
	    .line = line,
	    .timeout_ms = -1,
	    .freshness = {-1, -1, -1, -1},
	};
	l->section = "endpoint";
	forget_endpoint_places(l);
}

static void unknown_section(struct loader *l, unsigned line, const char *name)
{
	const char *near = key_nearest_section(name);

	if (near)
		errors_add(l->errs, l->file, line, "there is no section [%s]; did you mean [%s]?",
		           name, near);
	else
		errors_add(l->errs, l->file, line,
		           "there is no section [%s]; `provost --help-config` lists them", name);
}

static void on_section(void *arg, unsigned line, const char *name)
{
	struct loader *l = arg;
	size_t word = strcspn(name, " \t");

	l->in_section = true;
	l->section = NULL;
	if (word == strlen("endpoint") && strncmp(name, "endpoint", word) == 0) {
		begin_endpoint(l, line, name + word + strspn(name + word, " \t"));
		return;
	}
	l->section = key_section(name);
	if (!l->section)
		unknown_section(l, line, name);
	else if (strcmp(name, "database") == 0 && l->database_line == 0)
		l->database_line = line;
}

/* ---- keys ---------------------------------------------------------------------------- */

static void *base_of(struct loader *l, const struct key *k)
{
	return key_is_endpoint(k) ? (void *)l->override : l->config;
}

/* How much of a value to show: whole characters, one line. */
static int shown_length(const char *s)
{
	size_t n = strnlen(s, SHOWN_MAX + 1);

	if (n <= SHOWN_MAX)
		return (int)n;
	n = SHOWN_MAX;
	while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

static void set_key(struct loader *l, const struct key *k, struct place at, const char *value)
{
	char why[KEY_WHY_MAX];

	/* Marked as set even when it is wrong: one mistake, one error. */
	l->place[key_index(k)] = at;
	if (key_set(k, base_of(l, k), value, why) < 0)
		errors_add(l->errs, at.file, at.line, "[%s] %s: `%.*s` is not accepted; %s",
		           k->section, k->name, shown_length(value), value, why);
}

static void unknown_key(struct loader *l, unsigned line, const char *name)
{
	const char *near = key_nearest(l->section, name);
	const char *elsewhere = key_section_of(name);

	if (elsewhere)
		errors_add(l->errs, l->file, line, "`%s` is a key of [%s], not of [%s]", name,
		           elsewhere, l->section);
	else if (near)
		errors_add(l->errs, l->file, line, "[%s] has no key `%.*s`; did you mean `%s`?",
		           l->section, shown_length(name), name, near);
	else
		errors_add(l->errs, l->file, line,
		           "[%s] has no key `%.*s`; `provost --help-config` lists them", l->section,
		           shown_length(name), name);
}

/* inih knows `;` behind a value only; `#` would quietly become part of it. */
static bool has_hash_comment(const struct key *k, const char *value)
{
	return k->type != KEY_URL && (strstr(value, " #") || strstr(value, "\t#"));
}

static void add_room(struct loader *l, unsigned line, const char *name, const char *roles)
{
	char why[KEY_WHY_MAX];

	if (strstr(roles, " #") || strstr(roles, "\t#"))
		errors_add(l->errs, l->file, line,
		           "[rooms] %.*s: a comment behind a value begins with ` ;`",
		           shown_length(name), name);
	else if (rooms_add(&l->config->hub, name, roles, why) < 0)
		errors_add(l->errs, l->file, line, "[rooms] %.*s: %s", shown_length(name), name,
		           why);
}

static void on_pair(void *arg, unsigned line, const char *name, const char *value)
{
	struct loader *l = arg;
	const struct key *k;
	const struct place *before;

	if (!l->in_section) {
		errors_add(l->errs, l->file, line,
		           "`%.*s` stands in no section: put [http], say, above it",
		           shown_length(name), name);
		return;
	}
	if (!l->section)
		return;
	if (strcmp(l->section, "rooms") == 0) {
		add_room(l, line, name, value);
		return;
	}
	k = key_find(l->section, name);
	if (!k) {
		unknown_key(l, line, name);
		return;
	}
	before = &l->place[key_index(k)];
	if (before->file)
		errors_add(l->errs, l->file, line,
		           "[%s] %s is set in line %u already: keep one of them", k->section,
		           k->name, before->line);
	else if (has_hash_comment(k, value))
		errors_add(l->errs, l->file, line,
		           "[%s] %s: a comment behind a value begins with ` ;`", k->section,
		           k->name);
	else
		set_key(l, k, (struct place){l->file, line}, value);
}

static void on_problem(void *arg, unsigned line, const char *sentence)
{
	struct loader *l = arg;

	errors_add(l->errs, l->file, line, "%s", sentence);
}

/* ---- the environment ----------------------------------------------------------------- */

/* The value of a variable; empty counts as unset, as compose files pass on what they do not have.
 */
static const char *env_value(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return (*env)[n + 1] ? *env + n + 1 : NULL;
	}
	return NULL;
}

static const struct key *key_of_variable(const char *name, size_t n)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		char own[KEY_TEXT_MAX];

		key_variable(&config_keys[i], own);
		if (key_has_variable(&config_keys[i]) && strlen(own) == n &&
		    strncmp(own, name, n) == 0)
			return &config_keys[i];
	}
	return NULL;
}

static char *env_writable(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	}
	return NULL;
}

/* Of several the first is used; all are wiped. */
static void take_secret(struct loader *l, const char *name, struct secret **to)
{
	char *value = env_writable(l->env, name);
	struct secret *s;

	if (!value || !*value)
		return;
	s = secret_take(value);
	if (!s)
		errors_add(l->errs, name, 0,
		           "the secret is longer than 64KiB, or does not fit into memory");
	else if (!*to)
		*to = secret_ref(s);
	secret_unref(&s);
}

static void warn_unknown_variables(char *const *env)
{
	/* What scripts/run tells clients, not us. */
	static const char *const others[] = {
	    "PROVOST_URL",    "PROVOST_TOKEN", JWT_SECRET, NEXTAUTH_SECRET,
#ifdef WITH_DELAYS
	    "PROVOST_DELAYS", "PROVOST_BREAK",
#endif
	};

	for (; env && *env; env++) {
		size_t n = strcspn(*env, "=");
		bool known = strncmp(*env, "PROVOST_", 8) != 0 || key_of_variable(*env, n);

		for (size_t i = 0; i < ELEMENTSOF(others) && !known; i++)
			known = strlen(others[i]) == n && strncmp(*env, others[i], n) == 0;
		if (!known) {
			_cleanup_free_ char *name = xstrndup(*env, n);

			log_warn("config: no such key, variable ignored", LOGS("variable", name));
		}
	}
}

static void read_environment(struct loader *l)
{
	const char *database_url = env_value(l->env, "DATABASE_URL");

	if (database_url)
		set_key(l, key_find("database", "url"), (struct place){"DATABASE_URL", 0},
		        database_url);
	for (size_t i = 0; i < config_keys_count; i++) {
		const char *value;

		if (!key_has_variable(&config_keys[i]))
			continue;
		key_variable(&config_keys[i], l->variable[i]);
		value = env_value(l->env, l->variable[i]);
		if (value)
			set_key(l, &config_keys[i], (struct place){l->variable[i], 0}, value);
	}
	take_secret(l, JWT_SECRET, &l->config->auth.jwt_secret.given);
	take_secret(l, NEXTAUTH_SECRET, &l->config->auth.nextauth_secret.given);
	/* NextAuth's own name for it. */
	take_secret(l, "NEXTAUTH_SECRET", &l->config->auth.nextauth_secret.given);
	warn_unknown_variables(l->env);
}

/* ---- what the keys mean together ----------------------------------------------------- */

static struct place place_of(const struct loader *l, const char *section, const char *name)
{
	return l->place[key_index(key_find(section, name))];
}

static bool is_set(const struct loader *l, const char *section, const char *name)
{
	return place_of(l, section, name).file != NULL;
}

static void missing_url(struct loader *l)
{
	errors_add(
	    l->errs, l->file, l->database_line,
	    "no database is set: write `url = postgresql://user:password@host:port/database` into "
	    "[database], or set PROVOST_DATABASE_URL or DATABASE_URL");
}

/* What an ORM's URL says holds where neither the file nor the environment says otherwise. */
static void apply_url_settings(struct loader *l, struct place at, const struct url_settings *s)
{
	struct pool_options *pool = &l->config->pool;

	if (s->pool_max >= 0 && !is_set(l, "database", "pool_max")) {
		if (key_in_bounds(key_find("database", "pool_max"), s->pool_max))
			pool->max = (unsigned)s->pool_max;
		else
			errors_add(
			    l->errs, at.file, at.line,
			    "[database] url: a limit of %lld connections is out of bounds; set "
			    "pool_max, or write 1 to 1000",
			    (long long)s->pool_max);
	}
	if (s->acquire_timeout_ms >= 0 && !is_set(l, "database", "acquire_timeout"))
		pool->acquire_timeout_ms = s->acquire_timeout_ms;
	if (s->no_prepare && !is_set(l, "database", "prepare"))
		pool->prepare = false;
}

static void finish_url(struct loader *l)
{
	struct pool_options *pool = &l->config->pool;
	struct place at = place_of(l, "database", "url");
	struct url_settings s = {0};
	char why[URL_WHY_MAX];

	if (!pool->url || !*pool->url) {
		missing_url(l);
		return;
	}
	/* The value is never shown: there may be a password in it. */
	if (url_read(pool->url, &s, why) < 0) {
		errors_add(l->errs, at.file, at.line, "[database] url: %s", why);
		return;
	}
	apply_url_settings(l, at, &s);
	free(pool->url);
	pool->url = s.conninfo;
	s.conninfo = NULL;
	url_settings_done(&s);
}

/* An ORM's settings for the pool do not matter to one connection. */
static void finish_listen_url(struct loader *l)
{
	char **url = &l->config->listener.url;
	struct place at = place_of(l, "database", "listen_url");
	struct url_settings s = {0};
	char why[URL_WHY_MAX];

	if (!*url || !**url) {
		free(*url);
		*url = NULL;
		return;
	}
	if (url_read(*url, &s, why) < 0) {
		errors_add(l->errs, at.file, at.line, "[database] listen_url: %s", why);
		return;
	}
	free(*url);
	*url = s.conninfo;
	s.conninfo = NULL;
	url_settings_done(&s);
}

static void check_pool(struct loader *l)
{
	struct pool_options *pool = &l->config->pool;
	struct place at = place_of(l, "database", "pool_min");

	if (pool->min <= pool->max)
		return;
	if (at.file)
		errors_add(l->errs, at.file, at.line,
		           "[database] pool_min (%u) is more than pool_max (%u): lower the one or "
		           "raise the "
		           "other",
		           pool->min, pool->max);
	else
		pool->min = pool->max;
}

static void check_cache(struct loader *l)
{
	struct config *c = l->config;
	struct place capacity = place_of(l, "cache", "capacity");
	struct place shards = place_of(l, "cache", "shards");
	struct place at = capacity.file ? capacity : shards;
	struct place max_entry = place_of(l, "cache", "max_entry");

	c->max_entry_is_set = max_entry.file != NULL;
	if (limits_check_capacity(c, at.file, at.line, l->errs) == 0)
		limits_fit_max_entry(c, max_entry.file, max_entry.line, l->errs);
}

/* Where somebody else may be the caller. */
static void check_listen(struct loader *l)
{
	const struct config *c = l->config;
	struct place development = place_of(l, "http", "development");
	struct place mode = place_of(l, "auth", "mode");

	limits_check_development(c, development.file, development.line, l->errs);
	if (c->auth.mode == AUTH_NONE && http_listen_check(c->http.listen) == -EPERM)
		errors_add(
		    l->errs, mode.file, mode.line,
		    "[auth] mode: with none, whoever reaches the server is its administrator: "
		    "write token, or let [http] listen name an address of 127.0.0.0/8, ::1 or "
		    "localhost");
}

static int by_name(const void *a, const void *b)
{
	const struct endpoint_override *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static void finish(struct loader *l)
{
	struct config *c = l->config;

	finish_url(l);
	finish_listen_url(l);
	check_pool(l);
	check_cache(l);
	check_listen(l);
	if (c->overrides)
		qsort(c->override, c->overrides, sizeof(*c->override), by_name);
	l->override = NULL;
}

/* ---- loading ------------------------------------------------------------------------- */

static char *endpoints_beside(const char *file)
{
	const char *slash = file ? strrchr(file, '/') : NULL;

	if (!slash)
		return xstrdup("endpoints");
	return xasprintf("%.*s/endpoints", (int)(slash - file), file);
}

struct config *config_parse(const char *file, const char *text, size_t len, char *const *env,
                            struct errors *errs)
{
	struct config *c = xcalloc(1, sizeof(*c));
	struct loader l = {.config = c, .file = file, .env = env, .errs = errs};
	const struct inifile_handler handler = {&l, on_section, on_pair, on_problem};
	size_t before = errors_count(errs);

	c->file = file ? xstrdup(file) : NULL;
	c->endpoints_dir = endpoints_beside(file);
	set_defaults(c);
	inifile_read(text, len, &handler);
	read_environment(&l);
	finish(&l);
	if (errors_count(errs) != before)
		config_free(&c);
	return c;
}

static int read_all(int fd, struct buf *b)
{
	for (;;) {
		char *to = buf_reserve(b, 1 << 16);
		ssize_t r;

		if (!to)
			return -EFBIG;
		r = read(fd, to, 1 << 16);
		if (r == 0)
			return 0;
		if (r > 0)
			b->len += (size_t)r;
		else if (errno != EINTR)
			return -errno;
	}
}

static int read_file(const char *file, struct buf *b)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return -errno;
	return read_all(fd, b);
}

struct config *config_load(const char *file, char *const *env, struct errors *errs)
{
	_cleanup_buf_ struct buf text = {.max = CONFIG_FILE_MAX};
	int r = file ? read_file(file, &text) : 0;

	if (r == -EFBIG)
		errors_add(errs, file, 0, "the file is larger than 1MiB: this is no configuration");
	else if (r < 0)
		errors_add(errs, file, 0, "the file cannot be read: %s", strerror(-r));
	if (r < 0)
		return NULL;
	return config_parse(file, text.data ? text.data : "", text.len, env, errs);
}

void config_free(struct config **cp)
{
	struct config *c = *cp;

	if (!c)
		return;
	*cp = NULL;
	for (size_t i = 0; i < config_keys_count; i++) {
		if (!key_is_endpoint(&config_keys[i]))
			key_done(&config_keys[i], c);
	}
	auth_options_done(&c->auth);
	for (size_t i = 0; i < c->overrides; i++)
		free(c->override[i].name);
	free(c->override);
	free(c->file);
	free(c->endpoints_dir);
	free(c);
}
