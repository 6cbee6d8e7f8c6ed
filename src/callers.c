#include "callers.h"

#include <errno.h>
#include <time.h>

#include "provost/auth.h"
#include "provost/config.h"
#include "provost/identities.h"
#include "provost/log.h"

enum {
	LOOK_EVERY_MS = 5000,
	LOOK_APART_MS = 50, /* at least, when news ask for it: any role can send them */
	PURGE_EVERY = 60,   /* looks */
};

void callers_init(struct callers *c, struct auth *auth, const struct config *config, int interrupt)
{
	*c = (struct callers){.auth = auth};
	if (config->auth.mode != AUTH_NONE)
		c->identities =
		    identities_new(auth, config->pool.url, config->pool.prepare, interrupt);
}

void callers_done(struct callers *c)
{
	identities_free(&c->identities);
	auth_free(&c->auth);
}

void callers_warn(const struct errors *notes)
{
	for (size_t i = 0; errors_text(notes, i); i++)
		log_warn("auth: works, but should not stay so",
		         LOGS("reason", errors_text(notes, i)));
}

int callers_configure(struct callers *c, const struct config *config, struct errors *errs)
{
	_cleanup_errors_ struct errors *notes = errors_new();
	int r = auth_configure(c->auth, &config->auth, errs, notes);

	if (r == 0)
		callers_warn(notes);
	return r;
}

/* ---- looking ------------------------------------------------------------------------- */

static void look_at_files(struct callers *c)
{
	_cleanup_errors_ struct errors *errs = errors_new(), *notes = errors_new();
	int r = auth_refresh(c->auth, errs, notes);

	if (r < 0)
		log_errors(
		    "auth: the files that have changed are refused; the former keys stay in force",
		    errs);
	else if (r > 0)
		log_info("auth: keys and secrets were read anew");
	callers_warn(notes);
}

/* A failure is told once, not at every look. */
static void tell(const struct callers *c, int r, const struct errors *errs)
{
	struct auth_stats stats;

	if (r > 0) {
		auth_stats(c->auth, &stats);
		log_errors("auth: a row in the schema `provost` is wrong", errs);
		log_info("auth: API keys and revocations were read",
		         LOGU("api_keys", stats.api_keys), LOGU("revocations", stats.revocations));
	} else if (r == -ENOTCONN && c->failed != r) {
		log_warn("auth: API keys and revocations stay as they are",
		         LOGS("reason", errors_text(errs, 0)));
	} else if (r < 0 && r != -ECANCELED && c->failed != r) {
		log_warn("auth: API keys and revocations cannot be read",
		         LOGS("reason", errors_text(errs, 0)));
	}
}

static int look_at_database(struct callers *c)
{
	_cleanup_errors_ struct errors *errs = errors_new(), *ignored = errors_new();

	if (!c->identities)
		return 0;
	int r = identities_load(c->identities, errs);
	tell(c, r, errs);
	c->failed = MIN(r, 0);
	/* Of a failure the next look will tell. */
	if (r >= 0 && c->looks++ % PURGE_EVERY == 0)
		(void)!identities_purge(c->identities, time(NULL), ignored);
	return r;
}

int callers_look(struct callers *c)
{
	look_at_files(c);
	int r = look_at_database(c);
	uint64_t now = clock_ms();
	c->due_ms = now + LOOK_EVERY_MS;
	c->earliest_ms = now + LOOK_APART_MS;
	return r;
}

void callers_hasten(struct callers *c)
{
	c->due_ms = MIN(c->due_ms, c->earliest_ms);
}

int64_t callers_due_in_ms(const struct callers *c)
{
	uint64_t now = clock_ms();
	return c->due_ms > now ? (int64_t)(c->due_ms - now) : 0;
}
