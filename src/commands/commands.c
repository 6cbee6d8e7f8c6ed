#include "commands.h"

#include "../schema/admin.h"
#include "provost/config.h"

extern char **environ;

const char *command_config_file(const struct command_line *l)
{
	return l->config ? l->config : "config/provost.ini";
}

static bool url_is_in_environment(const struct command_line *l)
{
	const char *url = getenv("PROVOST_DATABASE_URL");

	return l->database || (url && *url);
}

struct config *command_load_url(const struct command_line *l, struct errors *errs)
{
	bool without_file = !l->config && url_is_in_environment(l);

	return config_load(without_file ? NULL : command_config_file(l), environ, errs);
}

int command_connect(const struct command_line *l, struct admin *ret, struct errors *errs)
{
	_cleanup_config_ struct config *config = command_load_url(l, errs);

	return config ? admin_open(ret, config->pool.url, errs) : -1;
}

int command_failed(const struct errors *errs)
{
	errors_print(errs, stderr);
	return 1;
}
