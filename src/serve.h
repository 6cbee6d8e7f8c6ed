/*
 * serve: the modules wired together, in the order in which they start and stop.
 */
#ifndef PROVOST_SERVE_H
#define PROVOST_SERVE_H

struct config;
struct catalog;
struct errors;

/* The endpoints of a configuration, with what its [endpoint] sections say. NULL with errors. */
struct catalog *serve_load_catalog(const struct config *c, struct errors *errs);
/* What is good of them, whatever else is wrong. */
struct catalog *serve_load_good(const struct config *c, struct errors *errs);

/* Runs the server until SIGTERM or SIGINT. Takes the configuration and the catalogue over. Returns
 * the process's exit status. `pidfile` may be NULL. */
int serve(struct config *config, struct catalog *catalog, const char *pidfile);

#endif
