/*
 * serve: the modules wired together, in the order in which they start and stop.
 */
#ifndef PROVOST_SERVE_H
#define PROVOST_SERVE_H

struct auth;
struct config;
struct catalog;
struct errors;

/* The endpoints of a configuration, with what its [endpoint] sections say. NULL with errors. */
struct catalog *serve_load_catalog(const struct config *c, struct errors *errs);
/* What is good of them, whatever else is wrong. */
struct catalog *serve_load_good(const struct config *c, struct errors *errs);

/* Reads keys and secrets as [auth] says. NULL with errors; what should not stay so is in `notes`.
 */
struct auth *serve_load_auth(const struct config *c, struct errors *errs, struct errors *notes);

/* Runs the server until SIGTERM or SIGINT. Takes the configuration, the catalogue and the callers'
 * keys over. Returns the process's exit status. `pidfile` may be NULL. */
int serve(struct config *config, struct catalog *catalog, struct auth *auth, const char *pidfile);

#endif
