#include "../schema/grants.h"

#include "../load.h"
#include "../schema/admin.h"
#include "commands.h"
#include "provost/catalog.h"
#include "provost/config.h"

extern char **environ;

int command_grants_print(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_config_ struct config *config = config_load(command_config_file(l), environ, errs);
	_cleanup_catalog_ struct catalog *catalog = config ? load_catalog(config, errs) : NULL;
	_cleanup_admin_ struct admin a = {NULL};

	if (l->role && !*l->role) {
		fprintf(stderr, "provost grants print: --role is empty\n");
		return 2;
	}
	if (!catalog || admin_open(&a, config->pool.url, errs) < 0 ||
	    grants_print(&a, catalog, l->role ? l->role : "provost_server", stdout, errs) < 0)
		return command_failed(errs);
	return 0;
}
