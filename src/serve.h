/*
 * serve: the modules wired together, in the order in which they start and stop.
 */
#ifndef PROVOST_SERVE_H
#define PROVOST_SERVE_H

struct auth;
struct config;
struct catalog;

/* Runs the server until SIGTERM or SIGINT. Takes the configuration, the catalogue and the callers'
 * keys over. Returns the process's exit status. `pidfile` may be NULL. */
int serve(struct config *config, struct catalog *catalog, struct auth *auth, const char *pidfile);

#endif
