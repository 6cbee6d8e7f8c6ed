#include "settings.h"

#include <errno.h>

#include "nextauth.h"

enum { SETTINGS_MAGIC = 0x53455454, LEEWAY_MAX_S = 300 };

/* While they are made. */
struct maker {
	struct settings *s;
	struct watch *watch;
	struct errors *errs, *notes;
};

/* ---- files --------------------------------------------------------------------------- */

static const char *why_unreadable(int err)
{
	switch (err) {
	case -ENODATA:
		return "is empty";
	case -EFBIG:
		return "is larger than 64 KiB";
	case -EPERM:
		return "may be written by everybody: chmod o-w";
	case -EISDIR:
		return "is not a regular file";
	case -ENOENT:
		return "does not exist";
	case -EACCES:
		return "may not be read by this user: change its owner or mode";
	default:
		return strerror(-err);
	}
}

static struct secret *read_file(struct maker *m, const char *option, const char *path,
                                bool is_secret)
{
	struct secret *text = NULL;
	bool shared = false;
	int r;

	watch_add(m->watch, path);
	r = secret_read_file(path, &text, &shared);
	if (r < 0)
		errors_add(m->errs, NULL, 0, "[auth] %s: %s %s", option, path, why_unreadable(r));
	else if (is_secret && shared && m->notes)
		errors_add(m->notes, NULL, 0,
		           "[auth] %s: %s may be read by everybody on this machine: chmod 600",
		           option, path);
	return text;
}

/* ---- secrets ------------------------------------------------------------------------- */

/* Without the newline that editors put behind the last line. NULL with the reason. */
static struct secret *trim(struct secret *whole, size_t min, const char **why)
{
	const char *s = (const char *)secret_bytes(whole);
	size_t n = secret_len(whole);

	if (n > 0 && s[n - 1] == '\n')
		n--;
	if (n > 0 && s[n - 1] == '\r')
		n--;
	*why = NULL;
	if (pem_is_like(whole))
		*why = "is a key in PEM format, not a secret";
	else if (n < min)
		*why = "is too short to be safe: make one with `openssl rand -base64 48`";
	for (size_t i = 0; i < n && !*why; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			*why = "is not one line of text";
	if (*why)
		return NULL;
	return n == secret_len(whole) ? secret_ref(whole) : secret_new(s, n);
}

/* Takes `whole` over. */
static void take_secret(struct maker *m, const char *option, const char *place,
                        struct secret *whole, size_t min, struct secret *to[AUTH_SECRETS_MAX],
                        size_t *count)
{
	const char *why;
	struct secret *s = trim(whole, min, &why);

	secret_unref(&whole);
	if (!s)
		errors_add(m->errs, NULL, 0, "[auth] %s: %s %s", option, place,
		           why ? why : "does not fit into memory");
	else if (*count == AUTH_SECRETS_MAX)
		errors_add(m->errs, NULL, 0, "[auth] %s: there are more than %d secrets", option,
		           AUTH_SECRETS_MAX);
	else
		to[(*count)++] = secret_ref(s);
	secret_unref(&s);
}

static size_t take_secrets(struct maker *m, const char *option, const struct auth_secrets *from,
                           size_t min, struct secret *to[AUTH_SECRETS_MAX])
{
	size_t count = 0;

	if (from->given)
		take_secret(m, option, "the environment's value", secret_ref(from->given), min, to,
		            &count);
	for (size_t i = 0; i < from->files.count; i++) {
		const char *path = from->files.item[i];
		struct secret *whole = read_file(m, option, path, true);

		if (whole)
			take_secret(m, option, path, whole, min, to, &count);
	}
	return count;
}

static bool is_set(const struct auth_secrets *s)
{
	return s->given || s->files.count > 0;
}

/* ---- JWT ----------------------------------------------------------------------------- */

static void take_algorithms(struct maker *m)
{
	const struct strlist *l = &m->s->options.algorithms;

	for (size_t i = 0; i < l->count; i++) {
		enum jwt_alg alg = jwt_alg_parse(l->item[i]);

		if (alg == JWT_ALGS)
			errors_add(m->errs, NULL, 0,
			           "[auth] algorithms: `%s` is none of HS256, RS256 and ES256",
			           l->item[i]);
		else
			m->s->keys.accepts[alg] = true;
	}
	m->s->jwt = l->count > 0;
}

static void take_jwt_secret(struct maker *m)
{
	struct secret *secret[AUTH_SECRETS_MAX];
	size_t n;

	if (!is_set(&m->s->options.jwt_secret))
		return;
	if (!m->s->keys.accepts[JWT_HS256]) {
		errors_add(
		    m->errs, NULL, 0,
		    "[auth] jwt_secret_file: there is a secret, but HS256 is not among [auth] "
		    "algorithms: add it, or remove the secret");
		return;
	}
	n = take_secrets(m, "jwt_secret_file", &m->s->options.jwt_secret, AUTH_SECRET_MIN, secret);
	if (n > 0)
		keyset_add_secrets(&m->s->keys, secret, n, "jwt_secret_file", m->errs);
	for (size_t i = 0; i < n; i++)
		secret_unref(&secret[i]);
}

/* `KID=PATH`, where KID has no slash, or `PATH`. */
static void take_key_file(struct maker *m, const char *item)
{
	const char *equals = strchr(item, '='), *slash = strchr(item, '/');
	bool named = equals && equals > item && (!slash || equals < slash);
	_cleanup_free_ char *kid = named ? xstrndup(item, (size_t)(equals - item)) : NULL;
	const char *path = named ? equals + 1 : item;
	_cleanup_secret_ struct secret *text = read_file(m, "key_files", path, false);

	if (text)
		keyset_add_file(&m->s->keys, kid, path, text, "key_files", m->errs);
}

static void take_jwks(struct maker *m)
{
	const char *path = m->s->options.jwks_file;
	_cleanup_secret_ struct secret *text =
	    read_file(m, "jwks_file", path, m->s->keys.accepts[JWT_HS256]);

	if (text)
		keyset_add_jwks(&m->s->keys, path, text, "jwks_file", m->errs);
}

static void check_every_alg_has_key(struct maker *m)
{
	const struct keyset *ks = &m->s->keys;

	for (int a = 0; a < JWT_ALGS; a++) {
		bool has = !ks->accepts[a];

		for (size_t i = 0; i < ks->count; i++)
			has = has || ks->key[i].alg == (enum jwt_alg)a;
		if (!has)
			errors_add(
			    m->errs, NULL, 0,
			    "[auth] algorithms: there is no key for %s: name one in [auth] %s, "
			    "or remove it from the list",
			    jwt_alg_name((enum jwt_alg)a),
			    a == JWT_HS256 ? "jwt_secret_file" : "key_files or jwks_file");
	}
}

/* A token for another service of the same issuer is as well signed as ours. */
static void check_parties(struct maker *m)
{
	const struct auth_options *o = &m->s->options;

	if (!o->issuer || !*o->issuer)
		errors_add(m->errs, NULL, 0,
		           "[auth] issuer: must be what your tokens have as iss, or `*` to accept "
		           "any issuer that has the key");
	if (o->audience.count == 0)
		errors_add(
		    m->errs, NULL, 0,
		    "[auth] audience: must be what your tokens have as aud, or `*` to accept "
		    "tokens made for other services, too");
}

static void take_jwt(struct maker *m)
{
	const struct auth_options *o = &m->s->options;
	size_t before = errors_count(m->errs);

	take_algorithms(m);
	take_jwt_secret(m);
	if (!m->s->jwt && (o->key_files.count > 0 || o->jwks_file))
		errors_add(m->errs, NULL, 0,
		           "[auth] algorithms: there are keys, but no algorithm is accepted: list "
		           "those that your tokens are signed with, of HS256, RS256, ES256");
	if (!m->s->jwt)
		return;
	check_parties(m);
	for (size_t i = 0; i < o->key_files.count; i++)
		take_key_file(m, o->key_files.item[i]);
	if (o->jwks_file)
		take_jwks(m);
	/* A key that could not be read has been complained of. */
	if (errors_count(m->errs) == before)
		check_every_alg_has_key(m);
}

/* ---- NextAuth ------------------------------------------------------------------------ */

static void take_nextauth(struct maker *m)
{
	struct settings *s = m->s;
	struct secret *secret[AUTH_SECRETS_MAX];
	size_t n = take_secrets(m, "nextauth_secret_file", &s->options.nextauth_secret,
	                        AUTH_NEXTAUTH_MIN, secret);

	for (size_t i = 0; i < n; i++) {
		struct secret *key = nextauth_key(secret[i]);

		if (key)
			s->nextauth[s->nextauth_keys++] = key;
		else
			errors_add(
			    m->errs, NULL, 0,
			    "[auth] nextauth_secret_file: the key cannot be derived from it");
		secret_unref(&secret[i]);
	}
}

/* ---- all together -------------------------------------------------------------------- */

static void check_claims(struct maker *m, const char *option, const struct auth_claims *c)
{
	if (!c->subject || !*c->subject)
		errors_add(m->errs, NULL, 0,
		           "[auth] %ssubject_claim: must name a claim, such as `sub`", option);
	if (!c->roles || !*c->roles)
		errors_add(m->errs, NULL, 0,
		           "[auth] %sroles_claim: must name a claim, such as `roles`", option);
}

static void check_numbers(struct maker *m)
{
	const struct auth_options *o = &m->s->options;

	if (o->leeway_s < 0 || o->leeway_s > LEEWAY_MAX_S)
		errors_add(m->errs, NULL, 0, "[auth] leeway: must be 0 to %d seconds",
		           LEEWAY_MAX_S);
	if (o->max_lifetime_s < 0 || o->max_lifetime_s > INT32_MAX)
		errors_add(m->errs, NULL, 0,
		           "[auth] max_token_lifetime: must be 0 (no bound) or more");
}

static void set_rules(struct settings *s)
{
	const struct auth_options *o = &s->options;

	s->jwt_rules = (struct claim_rules){
	    .kind = IDENTITY_JWT,
	    .issuer = o->issuer && strcmp(o->issuer, "*") != 0 ? o->issuer : NULL,
	    .audience = strlist_has(&o->audience, "*") ? NULL : &o->audience,
	    .subject = o->jwt_claims.subject,
	    .roles = o->jwt_claims.roles,
	    .scopes = true,
	    .leeway_s = o->leeway_s,
	    .max_lifetime_s = o->max_lifetime_s,
	    .origin = s->generation,
	};
	s->cookie_rules = (struct claim_rules){
	    .kind = IDENTITY_COOKIE,
	    .subject = o->cookie_claims.subject,
	    .roles = o->cookie_claims.roles,
	    .sub = true,
	    .leeway_s = o->leeway_s,
	    .max_lifetime_s = o->max_lifetime_s,
	    .origin = s->generation,
	};
}

static struct identity *make_anonymous(uint64_t origin)
{
	struct role_set roles = {.count = 0};
	struct identity_parts p = {
	    .kind = IDENTITY_NONE,
	    .subject = "anonymous",
	    .token_id = "",
	    .roles = &roles,
	    .issued_s = INT64_MIN,
	    .expires_s = INT64_MAX,
	    .origin = origin,
	};
	struct identity *i;

	ALWAYS(role_set_add(&roles, "admin", 5) == 0);
	i = identity_new_plain(&p);
	ALWAYS(i != NULL);
	return i;
}

struct settings *settings_new_closed(uint64_t generation)
{
	struct settings *s = xcalloc(1, sizeof *s);

	json_wipe_freed();
	s->magic = SETTINGS_MAGIC;
	atomic_init(&s->refs, 1);
	s->generation = generation;
	return s;
}

struct settings *settings_new(const struct auth_options *o, uint64_t generation,
                              struct watch *watch, struct errors *errs, struct errors *notes)
{
	struct settings *s = settings_new_closed(generation);
	struct maker m = {.s = s, .watch = watch, .errs = errs, .notes = notes};
	size_t before = errors_count(errs);

	auth_options_copy(&s->options, o);
	s->mode = o->mode;
	if (o->mode == AUTH_NONE) {
		s->anonymous = make_anonymous(generation);
		return s;
	}
	check_claims(&m, "", &o->jwt_claims);
	check_claims(&m, "cookie_", &o->cookie_claims);
	check_numbers(&m);
	take_jwt(&m);
	take_nextauth(&m);
	set_rules(s);
	if (errors_count(errs) > before)
		settings_unref(&s);
	return s;
}

struct settings *settings_ref(struct settings *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void settings_unref(struct settings **sp)
{
	struct settings *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	CHECK_MAGIC(s, SETTINGS_MAGIC);
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
		return;
	keyset_done(&s->keys);
	for (size_t i = 0; i < s->nextauth_keys; i++)
		secret_unref(&s->nextauth[i]);
	identity_unref(&s->anonymous);
	auth_options_done(&s->options);
	s->magic = 0;
	free(s);
}
