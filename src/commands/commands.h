/*
 * commands: what `provost` does besides serving, for those who administer it.
 *
 * Each runs to its end, prints what was asked for on stdout and all else on stderr, and returns the
 * process's exit status: 0; 1, something is wrong, and was said; 2, usage.
 */
#ifndef PROVOST_COMMANDS_H
#define PROVOST_COMMANDS_H

#include "provost/errors.h"
#include "provost/strlist.h"

struct config;

/* NULL where an option was not given. */
struct command_line {
	const char *config;
	const char *pidfile;
	bool test_echo;
	bool database; /* --database: its URL is in the environment by now */
	const char *subject, *roles, *expires, *note; /* key new */
	const char *role;                             /* grants print */
	const char *argument;                         /* key revoke */
	struct strlist words;                         /* triggers …: tables */
};

const char *command_config_file(const struct command_line *l);

int command_schema_install(const struct command_line *l);
int command_schema_print(const struct command_line *l);
int command_key_new(const struct command_line *l);
int command_key_list(const struct command_line *l);
int command_key_revoke(const struct command_line *l);
int command_grants_print(const struct command_line *l);
int command_triggers_install(const struct command_line *l);
int command_triggers_print(const struct command_line *l);
int command_triggers_remove(const struct command_line *l);
int command_triggers_status(const struct command_line *l);

/* ---- shared among them --------------------------------------------------------------- */

struct admin;

/* The configuration where nothing but the database's URL is needed: the file is read only when that
 * is where the URL is to be found. NULL with errors. */
struct config *command_load_url(const struct command_line *l, struct errors *errs);
/* Connects to the database that command_load_url finds. */
int command_connect(const struct command_line *l, struct admin *ret, struct errors *errs);
/* Prints the errors; 1. */
int command_failed(const struct errors *errs);

#endif
