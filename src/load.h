/*
 * load: what a configuration names, read from files: endpoints, keys and secrets. Nothing is in
 * force by that. One thread; the files are waited for.
 */
#ifndef PROVOST_LOAD_H
#define PROVOST_LOAD_H

struct auth;
struct catalog;
struct config;
struct errors;

/* The endpoints, with the lifetimes and timeouts that hold for them: what [endpoint NAME] says,
 * else the file, else the configuration for all. NULL with errors. */
struct catalog *load_catalog(const struct config *c, struct errors *errs);
/* What is good of them, whatever else is wrong. */
struct catalog *load_good_catalog(const struct config *c, struct errors *errs);

/* Reads keys and secrets as [auth] says. NULL with errors; what should not stay so is in `notes`,
 * which may be NULL. */
struct auth *load_auth(const struct config *c, struct errors *errs, struct errors *notes);

#endif
