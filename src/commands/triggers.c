#include "../schema/triggers.h"

#include "../engine/needs.h"
#include "../load.h"
#include "../schema/admin.h"
#include "commands.h"
#include "provost/catalog.h"
#include "provost/config.h"
#include "provost/engine.h"

extern char **environ;

enum { DESCRIBE_TIMEOUT_MS = 60000 };

/* What the endpoints of the configuration need, and the tables that were named. */
static int open_all(const struct command_line *l, struct admin *a, struct needs *n,
                    struct errors *errs)
{
	_cleanup_config_ struct config *config = config_load(command_config_file(l), environ, errs);
	_cleanup_catalog_ struct catalog *catalog = config ? load_catalog(config, errs) : NULL;

	if (!catalog || engine_describe(catalog, config->pool.url, config->pool.prepare, -1,
	                                clock_us() + DESCRIBE_TIMEOUT_MS * 1000ull, errs) < 0)
		return -1;
	needs_of_catalog(n, catalog);
	if (admin_open(a, config->pool.url, errs) < 0)
		return -1;
	return triggers_name(a, &l->words, n, errs);
}

typedef int each_fn(struct admin *a, const struct needs *n, FILE *out, FILE *notes,
                    struct errors *errs);

static int for_all(const struct command_line *l, each_fn *f)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_needs_ struct needs n = {0};
	_cleanup_admin_ struct admin a = {NULL};

	if (open_all(l, &a, &n, errs) < 0 || f(&a, &n, stdout, stderr, errs) < 0)
		return command_failed(errs);
	return 0;
}

int command_triggers_install(const struct command_line *l)
{
	return for_all(l, triggers_install);
}

int command_triggers_print(const struct command_line *l)
{
	return for_all(l, triggers_print);
}

int command_triggers_remove(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_needs_ struct needs n = {0};
	_cleanup_admin_ struct admin a = {NULL};

	if (command_connect(l, &a, errs) < 0 || triggers_name(&a, &l->words, &n, errs) < 0 ||
	    triggers_remove(&a, l->words.count ? &n : NULL, stdout, errs) < 0)
		return command_failed(errs);
	return 0;
}

int command_triggers_status(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_needs_ struct needs n = {0};
	_cleanup_admin_ struct admin a = {NULL};
	bool good;

	if (open_all(l, &a, &n, errs) < 0 || triggers_status(&a, &n, stdout, &good, errs) < 0)
		return command_failed(errs);
	return good ? 0 : 1;
}
