#include <string.h>

#include "keys.h"
#include "limits.h"
#include "provost/config.h"

struct diff {
	config_diff_fn *f;
	void *arg;
	size_t found;
};

/* NULL: the endpoint has no section, hence no key. */
static char *value_text(const struct key *k, const void *base)
{
	struct buf b = {0};
	char *text;

	if (!base)
		buf_adds(&b, "unset");
	else
		key_format(k, base, &b);
	text = buf_take(&b, NULL);
	ALWAYS(text);
	return text;
}

static void report(struct diff *d, const struct key *k, const char *section, const void *a,
                   const void *b)
{
	_cleanup_free_ char *from = value_text(k, a);
	_cleanup_free_ char *to = value_text(k, b);

	d->found++;
	if (d->f)
		d->f(d->arg, section, k->name, from, to, k->restart);
}

/* Either may be NULL. */
static void compare_override(struct diff *d, const struct key *k, const struct endpoint_override *a,
                             const struct endpoint_override *b)
{
	_cleanup_free_ char *section = xasprintf("endpoint %s", a ? a->name : b->name);

	/* A section that leaves the key out is as good as none. */
	if (a && key_is_unset(k, a))
		a = NULL;
	if (b && key_is_unset(k, b))
		b = NULL;
	if (a && b ? !key_equal(k, a, b) : a != b)
		report(d, k, section, a, b);
}

/* Both lists are sorted by name. */
static void compare_overrides(struct diff *d, const struct key *k, const struct config *a,
                              const struct config *b)
{
	size_t i = 0, j = 0;

	while (i < a->overrides || j < b->overrides) {
		const struct endpoint_override *x = i < a->overrides ? &a->override[i] : NULL;
		const struct endpoint_override *y = j < b->overrides ? &b->override[j] : NULL;
		int order = !x ? 1 : !y ? -1 : strcmp(x->name, y->name);

		compare_override(d, k, order <= 0 ? x : NULL, order >= 0 ? y : NULL);
		i += order <= 0;
		j += order >= 0;
	}
}

size_t config_diff(const struct config *a, const struct config *b, config_diff_fn *f, void *arg)
{
	struct diff d = {.f = f, .arg = arg};

	for (size_t i = 0; i < config_keys_count; i++) {
		const struct key *k = &config_keys[i];

		if (key_is_endpoint(k))
			compare_overrides(&d, k, a, b);
		else if (!key_equal(k, a, b))
			report(&d, k, k->section, a, b);
	}
	return d.found;
}

static void keep_secret(struct auth_secrets *to, const struct auth_secrets *running)
{
	if (!to->given && running->given)
		to->given = secret_ref(running->given);
}

int config_keep_restart(struct config *c, const struct config *running, struct errors *errs)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (config_keys[i].restart)
			key_copy(&config_keys[i], c, running);
	}
	keep_secret(&c->auth.jwt_secret, &running->auth.jwt_secret);
	keep_secret(&c->auth.nextauth_secret, &running->auth.nextauth_secret);
	return limits_keep(c, errs);
}
