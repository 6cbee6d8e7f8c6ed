/*
 * serve: the modules wired together, in the order in which they start and stop.
 */
#ifndef PROVOST_SERVE_H
#define PROVOST_SERVE_H

#include <stdbool.h>

struct auth;
struct config;
struct catalog;

struct serve_options {
	const char *pidfile; /* or NULL */
	bool test_echo;      /* serve /echo, for conformance tests */
};

/* Runs the server until SIGTERM or SIGINT. Takes the configuration, the catalogue and the callers'
 * keys over. Returns the process's exit status. */
int serve(struct config *config, struct catalog *catalog, struct auth *auth,
          const struct serve_options *o);

#endif
