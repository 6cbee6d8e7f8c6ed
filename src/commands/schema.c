#include "../schema/schema.h"

#include "../schema/admin.h"
#include "commands.h"

int command_schema_print(const struct command_line *l)
{
	(void)l;
	schema_print(stdout);
	return 0;
}

int command_schema_install(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_admin_ struct admin a = {NULL};
	int before;

	if (command_connect(l, &a, errs) < 0 || schema_install(&a, &before, errs) < 0)
		return command_failed(errs);
	if (before < 0)
		printf("the schema `provost` is installed, version %d\n", SCHEMA_VERSION);
	else if (before < SCHEMA_VERSION)
		printf("the schema `provost` is upgraded from version %d to %d\n", before,
		       SCHEMA_VERSION);
	else
		printf("the schema `provost` is up to date, version %d\n", SCHEMA_VERSION);
	return 0;
}
